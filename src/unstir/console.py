"""What the command line shows while it works: a bar with the time left on a terminal, a line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from unstir.progress import Count, counted, duration, sized, waiting
from unstir.train.observer import Observer

logger = logging.getLogger(__name__)

SILENT_SECONDS = 8.0  # without a terminal, the least time between two lines
TICK_SECONDS = 1.0  # so often a job that counts nothing is looked at


def stderr() -> Console:
    """Where progress goes; standard output is kept for results."""
    return Console(file=sys.stderr)


class _Note(ProgressColumn):
    """What a task says behind its other columns, cut where the line ends."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


class _Left(TimeRemainingColumn):
    """The time left as rich forecasts it or, where the task has a function ``left``, what it returns."""

    def render(self, task: Task) -> Text:
        left: Callable[[], float | None] = task.fields.get("left", lambda: None)
        seconds = left()
        if seconds is None:
            return super().render(task)
        return Text(f"{timedelta(seconds=round(seconds))}", style="progress.remaining")


def bars(console: Console) -> Progress:
    """Bars of tasks with a ``unit`` and a ``note``; nothing without a terminal."""
    wide = console.width >= 120
    count = TextColumn("{task.description}"), BarColumn(16 if wide else 8), MofNCompleteColumn()
    spent = (TimeElapsedColumn(), TextColumn("so far,")) if wide else ()
    rest = TextColumn("{task.fields[unit]}"), *spent, _Left(), TextColumn("left"), _Note()
    return Progress(*count, *rest, console=console, disable=not console.is_terminal)


class _Lines:
    """What is printed of a job now and then, where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console, self._spoke = console, time.monotonic()

    def speak(self, line: Callable[[], str], least: float) -> None:
        """Print the line, unless one was printed in the ``least`` seconds before."""
        if (now := time.monotonic()) - self._spoke >= least:
            self._spoke = now
            if not self._console.is_terminal:
                self._console.print(line(), highlight=False, markup=False, soft_wrap=True)


class Pace:
    """The seconds of a step, of the last snapshot (its held-out loss and its grid) and of one under way; 0: unknown."""

    STEPS = 6  # after so many the pace is known; the first, a slow one, is not in the mean

    def __init__(self) -> None:
        self.step_seconds = self.snapshot_seconds = self.under_way = 0.0
        self._taken, self._last = 0, time.monotonic()

    def step(self) -> bool:
        """A step was taken. Whether the pace is known now for the first time."""
        seconds, counts = time.monotonic() - self._last - self.under_way, not (self.under_way and self.step_seconds)
        if self.under_way:
            self.snapshot_seconds = self.under_way
        if counts:
            self.step_seconds += (seconds - self.step_seconds) / max(self._taken, 1)
            self._taken += 1
        self._last, self.under_way = time.monotonic(), 0.0
        return counts and self._taken == self.STEPS

    def pause(self) -> None:
        """A snapshot is going on."""
        self.under_way = time.monotonic() - self._last


class Bars:
    """Shows a job of `progress.counting`, and a job within it, by bars; without a terminal by a line now and then."""

    _progress: Progress | None = None

    @contextmanager
    def __call__(self, what: str, unit: str) -> Iterator[Count]:
        """Show a job on standard error."""
        outer = self._progress
        with nullcontext(outer) if outer is not None else self._shown() as progress:
            task = progress.add_task(what, total=None, unit=unit, note="", began=time.monotonic())

            def count(done: int, total: int, note: str = "") -> None:
                progress.update(task, completed=done, total=total, note=note)
                self._speak()

            try:
                yield count
            finally:
                if outer is not None or progress.tasks[0].total is None:  # a job that had nothing to do leaves no bar
                    progress.remove_task(task)

    @contextmanager
    def _shown(self) -> Iterator[Progress]:
        """Bars for the jobs in this block, and without a terminal lines of them, of a job that counts nothing too."""
        console, ended = stderr(), Event()
        self._lines = _Lines(console)

        def tick() -> None:
            while not ended.wait(TICK_SECONDS):
                self._speak()

        thread = Thread(target=tick, daemon=True)
        with bars(console) as self._progress:
            thread.start()
            try:
                yield self._progress
            finally:
                ended.set()
                thread.join()
                self._progress = None

    def _speak(self) -> None:
        if self._progress is not None and (tasks := self._progress.tasks):
            self._lines.speak(lambda: _line(tasks[-1]), SILENT_SECONDS)


def _line(task: Task) -> str:
    """A job in words: what is done and how long the rest takes; the time spent where that is not known."""
    done, total, seconds = task.completed, task.total, time.monotonic() - task.fields["began"]
    counts = f"{done:.0f} of {total:.0f} {task.fields['unit']} {task.fields['note']}" if total else ""
    rest = f"{waiting(seconds * (total - done) / done)} left" if total and 0 < done < total else ""
    far = f"{task.description}: {' '.join(counts.split())}" if counts else task.description
    return f"{far}, {rest or f'{duration(seconds)} so far'}"


BARS = Bars()


class TrainingDisplay(Observer):
    """The progress of training; after a few steps also how fast they are, and when the end and a snapshot come."""

    def __init__(self) -> None:
        self._console = stderr()
        self._progress = bars(self._console)
        self._training = self._progress.add_task("training", total=None, unit="steps", note="", left=self._left)
        self._lines = _Lines(self._console)
        self._shape = self._doing = self._note = ""
        self._batch, self._step, self._length, self._noted = 1, 0, 0, 0
        self._snapshots: tuple[int, ...] = ()
        self._pace = Pace()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, step: int, length: int, shape: tuple[int, ...], snapshots: Sequence[int] = ()) -> None:
        """Set the bar to where training stands."""
        self._pace = Pace()  # what came before, such as packing, is neither a step nor a snapshot
        self._step, self._length, self._batch, self._snapshots = step, length, shape[0], tuple(snapshots)
        self._shape = f"in batches of {counted(self._batch, 'image')} of {sized(shape[2:])}"
        self._progress.update(self._training, note=self._shape)
        self._progress.reset(self._training, total=length, completed=step)

    def step(self, step: int) -> None:
        """Move the bar on."""
        self._step, self._doing = step, ""
        self._progress.update(self._training, completed=step)
        if self._pace.step() and step < self._length:
            logger.info(self._forecast())
        self._lines.speak(self.line, SILENT_SECONDS)

    def _left(self) -> float | None:
        """The seconds to the end with all snapshots to come, once one was taken; None where they are not known."""
        pace, coming = self._pace, sum(at >= self._step for at in self._snapshots)
        if not pace.step_seconds:
            return None
        steps = (self._length - self._step) * pace.step_seconds
        return steps + max(0.0, coming * pace.snapshot_seconds - pace.under_way)

    def _forecast(self) -> str:
        speed = self._batch / max(self._pace.step_seconds, 1e-9)
        text = f"{speed:,.0f} images/s measured: {waiting(self._left() or 0.0)} to the end"
        if coming := [at for at in self._snapshots if at > self._step]:
            seconds = (coming[0] - self._step) * self._pace.step_seconds
            text += f"; the next snapshot in {duration(seconds)}, after step {coming[0]}"
        return text

    def metrics(self, line: dict[str, Any]) -> None:
        """Renew the figures behind the bar."""
        loss = "not finite" if line["loss"] is None else f"{line['loss']:.4f}"
        first, self._noted = not self._note, line["step"]
        speed = f"{line['images_per_second']:.0f} images/s"
        self._note = f"loss {loss} {speed} epoch {line['epoch']} lr {line['lr']:.2e}"  # a narrow line cuts the end
        self._progress.update(self._training, note=self._note)
        self._pace.step_seconds = self._batch / max(line["images_per_second"], 1e-9)
        self._lines.speak(self.line, 0.0 if first or line["step"] == self._length else SILENT_SECONDS)

    def line(self) -> str:
        """How far the training is, in a line."""
        seconds = self._left()
        left = "" if seconds is None else f", {waiting(seconds)} left"
        doing = f", {self._doing}" if self._doing else ""
        of_when = f"; at step {self._noted}" if self._note and self._noted != self._step else ""  # figures of the log
        return f"step {self._step} of {self._length}{of_when} {self._note or self._shape}{doing}{left}"

    def snapshot(self, what: str, done: int, total: int) -> None:
        """Show behind the bar how far a snapshot is."""
        self._doing = f"{what} {done} of {total}"
        self._pace.pause()
        self._progress.update(self._training, note=self._doing if done < total else self._note or self._shape)
        self._lines.speak(self.line, SILENT_SECONDS)

    def grid(self, step: int, file: Path) -> None:
        """Say where the first grid of a new run is, and with it all that follow."""
        if step == 0:
            logger.info(f"the first grid: {file}; others follow beside it as the network learns")
