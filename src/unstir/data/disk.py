"""Files as the data room opens them: regular ones only, and the disk's refusals as one line with the true remedy."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from unstir.errors import OF_THE_MACHINE, REMEDIES, UserError, remedy


def usable_path(path: str | Path) -> Path:
    """The path, where it can be one at all. Raises UserError for the empty text and for a NUL."""
    if not str(path) or "\0" in str(path):
        raise UserError(f"{str(path)!r} cannot be a path; give that of a file or folder")
    return Path(path)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read, and nothing that may never answer. Raises OSError, for a pipe or device too."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {what_it_is(mode)} and no file", str(path))
    return path.open("rb")


def what_it_is(mode: int) -> str:
    """A word for a thing in the file system that is neither file nor folder."""
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((word for test, word in kinds.items() if test(mode)), "a device")


def require_space(staging: Path, needed: int, smaller: str) -> None:
    """Raise UserError with both figures unless `needed` bytes are free beyond those already written.

    smaller: what to type for smaller images.
    """
    written = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
    free = shutil.disk_usage(staging).free + written
    if free < needed:
        raise UserError(
            f"{staging.parent}: packing needs {needed:,} bytes, {free:,} are free; "
            f"free some space, choose another folder or smaller images ({smaller})"
        )


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn the refusals of the disk, and want of memory, into one-line UserErrors."""
    try:
        yield
    except MemoryError:
        raise UserError(f"{out}: not enough memory to pack; close other programs or pack smaller images") from None
    except OSError as error:
        where = Path(os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else out)
        if not where.is_relative_to(out.parent):
            raise UserError(f"{where}: {remedy(error)}") from None
        again = (
            " and run the same command again, it continues where it stopped" if error.errno in OF_THE_MACHINE else ""
        )
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(out.parent if out.parent.exists() else Path.cwd()).free
            raise UserError(f"{out}: the disk is full ({free:,} bytes free); {REMEDIES[error.errno]}{again}") from None
        named = "" if where == out else f"{where}: "
        raise UserError(f"{out}: cannot be written ({named}{remedy(error)}{again})") from None


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    if os.name == "nt":  # folders have no descriptor there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
