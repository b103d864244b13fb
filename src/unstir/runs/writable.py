"""Whether files can be made in a folder, asked before hours of work go into one."""

import tempfile
from pathlib import Path

from unstir.errors import UserError
from unstir.runs.files import remedy


def check_writable(folder: Path, elsewhere: str = "") -> None:
    """Raise UserError where no file can be made in ``folder`` or, before it is there, in the one it will lie in.

    A file without a name is made, which leaves no trace (O_TMPFILE), so that a read-only disk, a missing right and a
    quota are all noticed, as they would be later. ``elsewhere`` is the remedy where another folder can be named.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"cannot make the folder {folder}: {place} is a file; {elsewhere or 'move that away'}")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(f"cannot write in {place}: {remedy(error, elsewhere)}") from None


def is_writable(folder: Path) -> bool:
    """Whether files can be made in ``folder``."""
    try:
        check_writable(folder)
    except UserError:
        return False
    return True


def check_file(path: Path, option: str) -> None:
    """Raise UserError where a file cannot be written: it is a folder, or its folder cannot be made or written in."""
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file in it")
    check_writable(path.parent, f"name another with {option}")
