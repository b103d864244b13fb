"""Standard output and error of a terminal that may close while a command runs, as with an ssh connection."""

import errno
import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Terminal(io.FileIO):
    """A terminal's raw stream; what is written after the terminal has closed (EIO) is dropped.

    The kernel fails writes to a terminal a moment before it sends SIGHUP, so that a handler would come too late.
    """

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write bytes and return their number."""
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
