"""What the command line shows while it works: a bar with the time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from unstir.train.watch import Watch

QUIET_SECONDS = 10.0
"""Without a terminal, the least time between two lines of progress."""


def bar(console: Console, *, unit: str) -> Progress:
    """A progress bar with count, unit, time spent and time left; it draws nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def counting(console: Console, what: str, unit: str) -> Iterator["Counter"]:
    """Show how far a job of known size has come: ``with counting(...) as count: job(progress=count)``."""
    with bar(console, unit=unit) as progress:
        yield Counter(progress, progress.add_task(what, total=None, note=""), console, what, unit)


class Counter:
    """Call it with (done, total)."""

    def __init__(self, progress: Progress, task: TaskID, console: Console, what: str, unit: str) -> None:
        self._progress, self._task, self._console, self._what, self._unit = progress, task, console, what, unit
        self._spoke = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """So much of it is done; ``note`` stands behind the bar."""
        self._progress.update(self._task, completed=done, total=total, note=note)
        if not self._console.is_terminal and time.monotonic() - self._spoke > QUIET_SECONDS:
            self._spoke = time.monotonic()
            self._console.print(f"{self._what}: {done} of {total} {self._unit} {note}".rstrip(), highlight=False)


class TrainingDisplay(Watch):
    """The progress of training: epoch, step, loss, image shape, learning rate, images a second and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = bar(console, unit="steps")
        self._training: TaskID | None = None
        self._aside: TaskID | None = None
        self._spoke = 0.0
        self._length = 0
        self._batch = 1
        self._shape = ""

    def __enter__(self) -> "TrainingDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, step: int, length: int, steps_per_epoch: int, shape: tuple[int, ...]) -> None:
        """Set the bar to where training stands."""
        self._length, self._batch, self._shape = length, shape[0], "x".join(map(str, shape))
        self._training = self._progress.add_task("training", total=length, completed=step, note=self._shape)

    def step(self, step: int) -> None:
        """Move the bar on."""
        if self._training is not None:
            self._progress.update(self._training, completed=step)

    def metrics(self, line: dict[str, Any]) -> None:
        """Renew the figures behind the bar."""
        loss = "not finite" if line["loss"] is None else f"{line['loss']:.4f}"
        speed = f"{line['images_per_second']:.0f} images/s"
        note = f"epoch {line['epoch']} loss {loss} {self._shape} lr {line['lr']:.2e} {speed}"
        if self._training is not None:
            self._progress.update(self._training, note=note)
        quiet = line["step"] < self._length and time.monotonic() - self._spoke < QUIET_SECONDS
        if not self._console.is_terminal and not quiet:
            self._spoke = time.monotonic()
            left = (self._length - line["step"]) * self._batch / max(line["images_per_second"], 1e-9)
            self._console.print(
                f"step {line['step']} of {self._length} {note}, about {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )

    def drawing(self, step: int, steps: int) -> None:
        """Show a second bar while a grid of samples is drawn."""
        self._show_aside("drawing samples", step, steps)

    def measuring(self, call: int, calls: int) -> None:
        """Show a second bar while losses are measured."""
        self._show_aside("measuring losses", call, calls)

    def _show_aside(self, what: str, done: int, total: int) -> None:
        if self._aside is None:
            self._aside = self._progress.add_task(what, total=total, note="")
        self._progress.update(self._aside, completed=done)
        if done == total:
            self._progress.remove_task(self._aside)
            self._aside = None

    def say(self, text: str) -> None:
        """Print a sentence above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True)


def stderr() -> Console:
    """Where progress goes; standard output is kept for results."""
    return Console(file=sys.stderr)


def showing(what: str, unit: str) -> AbstractContextManager[Counter]:
    """Show on standard error how far a job has come, as `counting` does."""
    return counting(stderr(), what, unit)
