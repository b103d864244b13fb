"""Files that are whole or absent: written under a temporary name, synced, renamed, and the rename synced too."""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from unstir.errors import OF_THE_MACHINE, UserError

PARTIAL = ".partial"
REMEDIES = {
    **OF_THE_MACHINE,
    errno.EACCES: "ask for the right to use it (chmod)",
    errno.EPERM: "ask its owner, or remove its protection (chattr)",
    errno.EROFS: "the file system is read-only: use a folder of another, or mount it for writing",
    errno.ENOENT: "put back what was moved or removed",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EISDIR: "it is a folder: move it away",
    errno.ENOTDIR: "a file is where a folder must be: move it away",
}
"""What to do about a file of a run that could not be read or written, by the system's number of the error."""

PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of the place that was named."""

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems that know no locks, as some network folders: files are written there all the same."""


@contextmanager
def replacing(path: Path, needs: int = 0, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write; when the block ends well it takes the place of ``path``, durably.

    When the block fails, the temporary file is removed and ``path`` keeps what it had. A full disk or a missing right
    is a UserError that states ``needs`` (bytes, where known) and what is free. Without ``durable`` a power cut may lose
    the file (a kill may not): for the thousands of images that can be drawn again. Several processes may write the same
    ``path``: each has a temporary file of its own, which `remove_partials` leaves alone while it is in use.
    """
    partial = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        if needs and shutil.disk_usage(path.parent).free < needs:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with _in_use(partial):
            mode = partial.stat().st_mode  # what the user's umask grants; some writers would hide the file from others
            yield partial
            partial.chmod(mode)
            if durable:
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
            partial.replace(path)
        if durable:
            sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        _remove(partial)
        raise UserError(_refusal(path, needs, error)) from None
    except ValueError as error:
        _remove(partial)
        if "null" not in str(error):
            raise
        raise UserError(f"{str(path)!r} has a zero byte in it, which no file name can have; name another") from None
    except BaseException:
        _remove(partial)
        raise


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left half written in ``folder``; what a living one is writing stays."""
    for partial in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError), partial.open("rb+") as file:  # gone meanwhile, or locked: its writer lives
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of this block for the same ``folder``, where its file system has locks; they wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _in_use(partial: Path) -> Iterator[None]:
    """The file made, and locked in this block: the kernel frees the lock when its holder dies."""
    file = _made(partial)
    try:
        yield
    finally:
        file.close()


def _made(partial: Path) -> IO[bytes]:
    while True:
        file = partial.open("wb")
        _lock(file)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was removed between being made and being locked


def _lock(file: int | IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _remove(partial: Path) -> None:
    with suppress(OSError, ValueError):
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a text file, durably; raises UserError as `replacing` does."""
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        name = ascii(text[max(error.start - 20, 0) : error.end])
        raise UserError(
            f"cannot write {path}: {name} in it is a name that is not UTF-8; rename that file or folder"
        ) from None
    with replacing(path) as partial:
        partial.write_bytes(content)


def make_folder(path: Path) -> Path:
    """The folder, made where it was not; UserError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {remedy(error, 'name another with --out')}") from None
    return path


def remedy(error: OSError, elsewhere: str = "") -> str:
    """The system's reason for an error, and what to do about it: ``elsewhere`` where another place would do."""
    reason, number = error.strerror or "it failed", error.errno or 0
    return f"{reason}; {elsewhere if elsewhere and number in PLACES else REMEDIES.get(number, 'mend that')}"


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusal(path: Path, needs: int, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    try:
        space = f"{shutil.disk_usage(path.parent).free / 1e6:.1f} MB are free there"
    except OSError:
        space = "its folder is gone"
    need = f"it needs {needs / 1e6:.1f} MB; " if needs else ""
    mend = REMEDIES.get(number or 0, "mend that")
    return f"cannot write {path}: {reason} ({need}{space}); {mend}, and run the same command again to continue"
