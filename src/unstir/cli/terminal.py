"""What the command line sets in its own process: memory, and a terminal that may close, as ssh's does."""

import ctypes
import errno
import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the options' numbers in glibc's malloc.h
_MOST = 2**31 - 1  # the largest value of an option


def keep_blocks() -> None:
    """From now on keep freed blocks of memory for the next ones. Call it before torch is loaded.

    glibc gives blocks above 32 MiB back at once, and the system clears the pages of each new one: a third of the time
    of training with images of 64x64. Another C library is left as it is, and no result depends on it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MOST)
        mallopt(_M_TRIM_THRESHOLD, _MOST)


class _Terminal(io.FileIO):
    """A terminal's raw stream; what is written after it has closed (EIO, just before SIGHUP) is dropped."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(data).nbytes


def prepare() -> None:
    """Let no name that the encoding lacks, and no terminal that has closed, be a reason to fail."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        if stream.isatty():
            stream.flush()
            raw = io.BufferedWriter(_Terminal(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=True)
            setattr(sys, name, text)
