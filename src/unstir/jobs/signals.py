"""Signals and exits of the command line: the first one asks a training to stop, a second one ends it at once."""

import os
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from unstir.jobs.place import place
from unstir.train.observer import Stop

SHOW_CURSOR = b"\x1b[?25h\n"  # which a progress bar has hidden
ENDED = b"unstir: ended at once; what was written stays, and the same command goes on or begins again\n"


class Signals(Stop):
    """Turns Ctrl-C, SIGTERM and SIGHUP into a request to stop, within its block; a second one ends the process at once.

    SIGHUP comes when the terminal closes, as with an ssh connection; where it was ignored from the start, as under
    nohup, it stays so. What is written to a terminal that has closed is dropped, for it would be an error.
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
        if self.signal is None and number == signal.SIGHUP:
            _leave_the_terminal()
        self.request(number)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
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
