"""Folders that are whole or absent, as `runs.files` makes files."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from unstir.errors import UnwrittenError, UserError
from unstir.runs.files import check_writable, make_folder, staging, writing

IS_RUN = "is a run already", "every command takes its folder"  # what is wrong with a run in place of a foreign model


def check_new(folder: Path) -> None:
    """Raise UserError where ``folder`` holds something, is a link, a mount or the present one, or cannot be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("out", folder, "is not empty" if folder.is_dir() else "is a file", "name a new folder")
    if folder.exists() and (folder.is_symlink() or folder.is_mount() or folder.samefile(".")):
        raise UserError("out", folder, "cannot be replaced by a folder that is whole", "name one that does not exist")
    check_writable(folder, "out")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write in, which gets its name when the block ends well and is gone otherwise.

    Raises UnwrittenError, which names ``folder``, where it cannot be written; other errors of the block stay as they
    are. What a killed process left half written of a folder of this name is removed first.
    """
    parent = make_folder(folder.absolute().parent)
    partial = folder
    try:
        with ExitStack() as stack:
            with writing(folder):
                partial = stack.enter_context(staging(parent, folder.name[:50]))
            yield partial
            with writing(partial):
                partial.replace(folder)
    except UnwrittenError as error:
        path = Path(error.filename)
        place = folder / path.relative_to(partial) if path.is_relative_to(partial) else path
        raise UnwrittenError(error.errno, error.strerror, str(place)) from None
