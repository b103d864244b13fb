"""Who follows a training, and how it is asked to stop."""

import os
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from unstir.distributed import processes


class Observer:
    """Called with what training does; this one is silent, the command line's draws a progress bar."""

    def __enter__(self) -> Self:
        """Training is about to be set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Training has ended."""

    def begin(self, step: int, length: int, shape: tuple[int, ...], snapshots: Sequence[int] = ()) -> None:
        """Training goes on from ``step`` of ``length`` with batches of ``shape``, (B, C, H, W).

        ``snapshots`` are the steps, rising, after which the held-out loss is measured and a grid drawn.
        """

    def step(self, step: int) -> None:
        """Optimiser step number ``step`` (1 is the first) has been taken."""

    def metrics(self, line: dict[str, Any]) -> None:
        """A line went into metrics.jsonl."""

    def held_out(self, line: dict[str, Any]) -> None:
        """A line went into held_out.jsonl."""

    def grid(self, step: int, file: Path) -> None:
        """The grid of samples after ``step`` was drawn: a PNG file."""

    def snapshot(self, what: str, done: int, total: int) -> None:
        """Of a snapshot's work, in words, so much is done: steps of its grid, or network calls of its losses."""


class Stop:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a request that the loop honours at its next step; a second ends at once.

    SIGHUP comes when the terminal closes, as with an ssh connection; where it was ignored from the start, as under
    nohup, it stays so. What is written to a terminal that has closed is dropped, for it would be an error.
    Of several processes a second signal is ignored, for torchrun repeats one; it ends who takes longer than 30 seconds.
    Used as a context manager; ``signal`` is the number received or None, and ``status`` the exit status it asks for.
    With ``install=False`` no handler is set, and only `request` stops the loop. ``end`` is called with the exit status
    to end the process at once.
    """

    def __init__(self, install: bool = True, end: Callable[[int], NoReturn] = os._exit) -> None:
        self.signal: int | None = None
        self._install, self._end = install, end
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def status(self) -> int:
        """128 + the signal's number, as shells report it: Ctrl-C 130, SIGTERM 143, SIGHUP 129; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    def request(self, number: int, frame: FrameType | None = None) -> None:
        """Ask to stop; when already asked, end the process now (files are whole or absent at any time)."""
        if self.signal is not None:
            if processes.size() > 1:
                return
            self._end(128 + number)
        if number == signal.SIGHUP:
            _leave_the_terminal()
        self.signal = number

    def __enter__(self) -> Self:
        if self._install:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self.request)
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
