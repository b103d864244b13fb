"""Who follows a training, and how it is asked to stop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self


class Observer:
    """Called with what training does; this one is silent, the command line's draws a progress bar."""

    def __enter__(self) -> Self:
        """Training is about to be set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Training has ended."""

    def begin(self, step: int, length: int, shape: tuple[int, ...], snapshots: Sequence[int] = ()) -> None:
        """Training goes on from ``step`` of ``length`` with batches of ``shape``, (B, C, H, W).

        After a kill lines of later steps may have been told already, and come again.

        ``snapshots`` are the steps, rising, after which the held-out loss is measured and a grid drawn.
        """

    def step(self, step: int) -> None:
        """Optimiser step number ``step`` (1 is the first) has been taken."""

    def metrics(self, line: dict[str, Any]) -> None:
        """A line went into metrics.jsonl; a mean in it is None where all of its steps were skipped."""

    def held_out(self, line: dict[str, Any]) -> None:
        """A line went into held_out.jsonl."""

    def grid(self, step: int, file: Path) -> None:
        """The grid of samples after ``step`` was drawn: a PNG file."""

    def snapshot(self, what: str, done: int, total: int) -> None:
        """Of a snapshot's work, in words, so much is done: steps of its grid, or network calls of its losses."""


class Stop:
    """A request to stop, which training honours at its next step; it is entered where training begins.

    ``signal`` is the number of the signal that was received, or None; `unstir.jobs.signals` turns signals into it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def request(self, number: int) -> None:
        """Ask to stop, for a signal; only the first request counts."""
        self.signal = self.signal or number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Training has ended."""
