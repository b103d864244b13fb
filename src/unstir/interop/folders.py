"""Folders that are whole or absent, as `runs.files` makes files."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from unstir.data.disk import take_lock
from unstir.errors import UnwrittenError, UserError
from unstir.runs.files import PARTIAL, check_writable, make_folder, writing

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

    Raises UnwrittenError, which names ``folder``, where it cannot be written; in the block `writing` does so for what
    other libraries write. Other errors of the block, such as of a file that it reads, stay as they are. What a killed
    process left half written of a folder of this name is removed first.
    """
    parent = make_folder(folder.absolute().parent)
    partial = parent / f".{folder.name[:50]}.{secrets.token_hex(4)}{PARTIAL}"
    try:
        with ExitStack() as in_use:
            with writing(partial):
                _remove_partials(parent, f".{folder.name[:50]}.")
                in_use.callback(os.close, _made_and_locked(partial))
            yield partial
            with writing(partial):
                partial.replace(folder)
    except UnwrittenError as error:
        path = Path(error.filename)
        place = folder / path.relative_to(partial) if path.is_relative_to(partial) else path
        raise UnwrittenError(error.errno, error.strerror, str(place)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _made_and_locked(partial: Path) -> int:
    """The descriptor of a folder that is made, and locked until it is closed."""
    while True:
        partial.mkdir()
        with suppress(FileNotFoundError):
            descriptor = os.open(partial, os.O_RDONLY)
            take_lock(descriptor)
            if partial.exists():  # else it was removed between being made and being locked
                return descriptor
            os.close(descriptor)


def _remove_partials(parent: Path, start: str) -> None:
    """Remove folders in ``parent`` that no living process is writing, whose names begin so."""
    for partial in parent.glob(f".*.????????{PARTIAL}"):
        if partial.name[: -len("01234567" + PARTIAL)] != start or not partial.is_dir():
            continue
        with suppress(OSError):  # gone meanwhile, locked: its writer lives, or of a file system without locks
            descriptor = os.open(partial, os.O_RDONLY)
            try:
                if take_lock(descriptor, wait=False):
                    shutil.rmtree(partial, ignore_errors=True)
            finally:
                os.close(descriptor)
