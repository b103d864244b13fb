"""Files on disk: opened, hashed, downloaded, and locked between processes. Only regular files are opened.

A lock is a file of its own beside what it guards, and holds no data, for filelock may empty it; the system frees that
of a dead holder. A link in its place is refused, and what it leads to stays as it is.
"""

import errno
import hashlib
import http.client
import os
import re
import shutil
import ssl
import stat
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from unstir.errors import UserError, remedy
from unstir.progress import counting

_WITHOUT_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP  # of file systems that know none, as some network folders
_TIMEOUT = 30.0  # seconds without a byte that end a connection


def usable_path(path: str | Path) -> Path:
    """The path, where it can be one at all. Raises UserError for the empty text and for a NUL."""
    if not str(path) or "\0" in str(path):
        raise UserError("", repr(str(path)), "cannot be a path", "give that of a file or folder")
    return Path(path)


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """A regular file to read in this block. Raises OSError, also for a pipe or device, which may never answer.

    The error names the file: the system names none where a file opens and cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    with path.open("rb") as file:
        try:
            yield file
        except OSError as error:
            if error.errno and error.filename is None:
                error.filename = str(path)
            raise


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; errors as `open_file`."""
    with open_file(path) as file:
        return file.read()


@contextmanager
def file_errors(file: Path) -> Iterator[None]:
    """Turn the refusal of a file into a UserError with the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(remedy(error)).at(file) from None


@contextmanager
def tar_errors(file: Path) -> Iterator[None]:
    """Raise UserError for what tarfile raises on damaged bytes; errors of the system stay as they are."""
    try:
        yield
    except UserError:
        raise
    except (OSError, tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError) as error:
        if getattr(error, "errno", None):
            raise
        raise UserError("", file, "is no readable tar", "fetch it again") from None


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file, in hex. Raises UserError where it cannot be read."""
    with file_errors(file), open_file(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(file: Path, *expected: str) -> None:
    """Raise UserError where the SHA-256 of a file, in hex, is none of those ``expected``."""
    if (sha256 := file_sha256(file)) not in expected:
        allowed = f"has SHA-256 {sha256}, not {' or '.join(expected)}"
        raise UserError("", file, allowed, "fetch it again, or vouch for it by sha256")


def require_space(folder: Path, needed: int) -> None:
    """Raise UserError unless `needed` bytes are free where a folder is."""
    if (free := shutil.disk_usage(folder).free) < needed:
        mend = "free some space, choose another folder or pack smaller images"
        raise UserError("", folder.parent, f"needs {needed:,} bytes, {free:,} are free", mend)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut, where its file system can."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP):  # as some network folders
            raise
    finally:
        os.close(descriptor)


def fetch(url: str, target: Path, sha256: str) -> None:
    """Download url to target unless it is there; a partial file `target.part` is continued, then checked, then renamed.

    Raises UserError offline, where it is cut off, and for another SHA-256.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        _continue(url, part)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or cause  # in the system's words, without their number
        done = part.stat().st_size if part.exists() else 0
        mend = f"run it again to continue, or put the file at {target} yourself (SHA-256 {sha256})"
        raise UserError("", url, f"stopped at {done:,} bytes ({reason})", mend) from None
    if (actual := file_sha256(part)) != sha256:
        part.unlink()
        raise UserError("", url, f"has SHA-256 {actual}, not {sha256}", "try again later, the download is removed")
    part.replace(target)


def _continue(url: str, part: Path) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # the part is whole, or worthless: its hash tells
            return
        raise
    with response, part.open("ab") as stream, counting("downloading", "bytes") as count:
        if start and response.status != http.client.PARTIAL_CONTENT:
            stream.truncate(0)
            start = 0
        length = int(response.headers.get("Content-Length") or 0)
        total, done = start + length, start
        while block := response.read(1 << 18):
            stream.write(block)
            done += len(block)
            count(done, max(total, done))
        stream.flush()
        os.fsync(stream.fileno())
    if done < total:
        raise ConnectionError(f"the connection closed {total - done:,} bytes early")


def item_digest(path: str, data: bytes | None) -> bytes:
    """SHA-256 over the name and content of one file of the source (None: unreadable)."""
    content = b"unreadable" if data is None else hashlib.sha256(data).digest()
    return hashlib.sha256(path.encode("utf-8", "surrogateescape") + b"\0" + content).digest()


def natural(path: str) -> tuple[tuple[tuple[int, str, str], ...], str]:
    """Sort key under which img2 comes before img10 and folders keep together."""
    key: list[tuple[int, str, str]] = []
    for part in path.split("/"):
        # digits compare by length, then value; the separator comes before any piece
        pieces = enumerate(re.split(r"([0-9]+)", part))
        key += ((len(p.lstrip("0")), p.lstrip("0"), "") if i % 2 else (0, p.casefold(), p) for i, p in pieces)
        key.append((-1, "", ""))
    return tuple(key), path


@contextmanager
def held(file: Path, otherwise: Exception | None = None) -> Iterator[bool]:
    """Hold the lock ``file``, made here and removed after the block; False where there are no locks.

    Where another process has it, wait, or raise ``otherwise``. Raises OSError where it cannot be made, or is a link.
    """
    from filelock import FileLock, Timeout  # with asyncio, which few commands need

    lock = FileLock(file)
    try:
        lock.acquire(timeout=-1 if otherwise is None else 0)
    except Timeout as error:
        raise otherwise or error from None
    except NotImplementedError:  # of filelock's first versions
        pass
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        with suppress(OSError):
            file.unlink()
        lock.release()
