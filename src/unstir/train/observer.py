"""Who follows a training, and how it is asked to stop. Trackers (`log.to`) are told all that the observer is told."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from unstir import parts
from unstir.errors import UserError
from unstir.runs.sections import LogConfig

logger = logging.getLogger(__name__)


class Observer:
    """Called with what training does; this one is silent, the command line's draws a progress bar."""

    def __enter__(self) -> Self:
        """Training is about to be set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Training has ended."""

    def begin(self, step: int, length: int, shape: tuple[int, ...], snapshots: Sequence[int] = ()) -> None:
        """Training goes on from ``step`` of ``length`` with batches of ``shape``, (B, C, H, W).

        ``snapshots`` are the steps, rising, after which the held-out loss is measured and a grid drawn. After a kill
        lines of later steps may have been told already, and come again.
        """

    def step(self, step: int) -> None:
        """Optimiser step number ``step`` (1 is the first) has been taken."""

    def metrics(self, line: dict[str, Any]) -> None:
        """A line went into metrics.jsonl; a mean in it is None where all of its steps were skipped."""

    def held_out(self, line: dict[str, Any]) -> None:
        """A line went into held_out.jsonl."""

    def grid(self, step: int, file: Path) -> None:
        """The grid of samples after ``step`` was drawn: a PNG file."""

    def snapshot(self, job: str, done: int, total: int) -> None:
        """Of a snapshot's ``job``, in words, so much is done: steps of its grid, or network calls of its losses."""


class Observers(Observer):
    """Several observers as one, told in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def tell(self, hook: str, *values: Any) -> None:
        """Call the method ``hook`` of each."""
        for observer in self._observers:
            getattr(observer, hook)(*values)

    def __enter__(self) -> Self:
        self.tell("__enter__")
        return self


for _hook in ("__exit__", "begin", "step", "metrics", "held_out", "grid", "snapshot"):
    setattr(Observers, _hook, lambda observers, *values, hook=_hook: observers.tell(hook, *values))


class Stop:
    """A request to stop, which training honours at its next step; it is entered where training begins.

    ``signal`` is the number of the signal that was received, 0 where an observer asks, or None; `unstir.jobs.process`
    turns signals into it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def request(self, number: int) -> None:
        """Ask to stop, for a signal or 0; only the first request counts."""
        self.signal = number if self.signal is None else self.signal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Training has ended."""


def tracked(observer: Observer, log: LogConfig, folder: Path) -> Observer:
    """The observer of the run in ``folder``, then its trackers; UserError for an option, or where one cannot load."""
    return Observers(observer, *(_Guarded(name, _tracker(name, folder, log)) for name in log.to))


def _tracker(name: str, folder: Path, log: LogConfig) -> Observer:
    options = parts.options_of(name, log.options)
    try:
        parts.check_options("tracker", name, options, f"log.options.{parts.short_name(name)}")
        tracker: Observer = parts.find("tracker", name)(folder, **options)
    except UserError:
        raise
    except Exception as error:
        mend = "install its library anew"
        if parts.is_own(name):
            mend = "mend it there; the folder is made before begin, and is the place to open files in"
        raise UserError("log.to", name, f"cannot be loaded: {parts.said(error)}", mend) from None
    return tracker


class _Guarded(Observers):
    """A tracker that is named once and told nothing more when it raises any exception."""

    def __init__(self, name: str, tracker: Observer) -> None:
        super().__init__(tracker)
        self._name = name

    def tell(self, hook: str, *values: Any) -> None:
        try:
            super().tell(hook, *values)
        except Exception as error:
            (tracker,), self._observers = self._observers, ()
            logger.warning(f"{self._name} failed and shows no more of this run, which goes on: {parts.said(error)}")
            with suppress(Exception):
                tracker.__exit__(None, None, None)
