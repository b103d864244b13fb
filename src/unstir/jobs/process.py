"""This process of a job: which of torchrun's it is, its memory and terminal, and the signals that stop or end it."""

import ctypes
import errno
import io
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from unstir.errors import UserError
from unstir.group import Alone
from unstir.train.observer import Stop

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

LOST = 75
"""The exit status of processes that end because another one did: the same command continues (EX_TEMPFAIL)."""
TIMEOUT = timedelta(minutes=30)
HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
SHOW_CURSOR = b"\x1b[?25h\n"  # which a progress bar has hidden
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the options' numbers in glibc's malloc.h
_MOST = 2**31 - 1  # the largest value of an option
ENDED = b"unstir: ended at once; what was written stays, and the same command goes on or begins again\n"


@contextmanager
def torchrun_group(device: str = "auto", timeout: timedelta = TIMEOUT) -> Iterator[Alone]:
    """The group of the processes that torchrun started, all of which leave this block together; else `Alone`.

    Each takes the CUDA device of its number on its machine, unless ``device`` is "cpu". ``timeout`` is how long they
    wait for each other where they meet and where they exchange tensors. Raises UserError where the environment names no
    process of a job, the device is missing or another process does not come, LostError where one has ended or does not
    answer.
    """
    here = checked_place()
    if here.size == 1:
        yield here
        return
    from unstir.jobs.torchrun import joined  # which needs torch's distributed part

    with joined(here, device, timeout) as group:
        yield group


def place() -> Alone:
    """This process's place, by RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; 0 of 1 without these."""
    try:
        return checked_place()
    except UserError:
        return Alone()


def checked_place() -> Alone:
    """As `place`; UserError where the environment names no process of a job."""
    given = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if given["WORLD_SIZE"] is None:
        return Alone()
    try:
        rank, size, local = (int(text or "0") for text in given.values())
    except ValueError:
        rank = size = local = -1
    if not (0 <= rank < size and 0 <= local <= rank):
        named = ", ".join(f"{name}={text}" for name, text in given.items())
        raise UserError("", named, "name no process of a job", "start it by torchrun, or without these variables")
    return Alone(rank, size, local)


def may_speak(lost: bool) -> bool:
    """Whether this process says how the job ended, as the first to end does; ``lost``: it ends as another one did."""
    here = place()
    if here.size == 1:
        return True
    from unstir.jobs.torchrun import is_first_to_end  # which imports torch

    return is_first_to_end(str(here.rank), if_gone=lost)


class Signals(Stop):
    """Turns Ctrl-C, SIGTERM and SIGHUP into a request to stop, within its block; a second one ends the process at once.

    SIGHUP comes when the terminal closes, as with an ssh connection; where it was ignored from the start, as under
    nohup, it stays so.
    Of several processes a second signal is ignored, for torchrun repeats one; it ends who takes longer than 30 seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def status(self) -> int:
        """128 + the signal's number, as shells report it: Ctrl-C 130, SIGTERM 143, SIGHUP 129; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and place().size == 1:
            with suppress(OSError):  # the terminal may have closed
                os.write(2, SHOW_CURSOR * os.isatty(2) + ENDED)
            os._exit(128 + number)  # files are whole or absent at any time
        if self.signal is None and number == HANGUP:
            _leave_the_terminal()
        self.request(number)

    def __enter__(self) -> Self:
        for number in filter(None, (signal.SIGINT, signal.SIGTERM, HANGUP)):
            if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _leave_the_terminal() -> None:
    """Send standard output and error nowhere, unless they are files or pipes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def end_at_once() -> None:
    """From now on Ctrl-C ends the process at once, without a word: all is saved."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def keep_blocks() -> None:
    """From now on keep freed blocks of memory for the next ones. Call it before torch is loaded.

    glibc gives blocks above 32 MiB back at once, and the system clears the pages of each new one, which takes much of
    the time of training. Another C library is left as it is, and no result depends on it.
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


def prepare_terminal() -> None:
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
