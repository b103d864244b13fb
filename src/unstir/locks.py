"""Locks between processes, each a file of its own beside what it guards; the system frees that of a dead holder.

A lock holds no data, for filelock may empty it. A link in its place is refused, and what it leads to stays as it is.
"""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems that know no locks, as some network folders: they are written to."""


@contextmanager
def held(file: Path, otherwise: Exception | None = None) -> Iterator[bool]:
    """Hold the lock ``file``, made here and removed after the block; False where there are no locks.

    Where another process has it, wait, or raise ``otherwise``. Raises OSError where it cannot be made, or is a link.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        _say_missing()
        yield False
        return
    lock = FileLock(file)
    try:
        lock.acquire(timeout=-1 if otherwise is None else 0)
    except Timeout as error:
        raise otherwise or error from None
    except NotImplementedError:  # of filelock's first versions
        pass
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        with suppress(OSError):
            file.unlink()
        lock.release()


@cache
def _say_missing() -> None:
    logger.warning("filelock is not installed: nothing keeps two processes from writing in one folder")
