"""The bars of the command line: count, unit, time spent and left, and behind them what fits into the terminal."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

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


class _Note(ProgressColumn):
    """What a task says behind its other columns: the first of its notes that fits into what they leave of the line."""

    def __init__(self, shown: Progress) -> None:
        super().__init__()
        self._shown = shown

    def render(self, task: Task) -> Text:
        notes: tuple[str, ...] = task.fields["notes"]
        console, others = self._shown.console, [column for column in self._shown.columns if column is not self]
        room = console.width - sum(1 + max(map(partial(self._width, column), self._shown.tasks)) for column in others)
        return Text(next((note for note in notes if len(note) <= room), ""), no_wrap=True)

    def _width(self, column: str | ProgressColumn, task: Task) -> int:
        shown = column if isinstance(column, str) else column(task)
        return self._shown.console.measure(shown).maximum


class _Left(TimeRemainingColumn):
    """The time left as rich forecasts it or, where the task has a field ``left``, what that function returns."""

    def render(self, task: Task) -> Text:
        left: Callable[[], tuple[float, bool] | None] | None = task.fields.get("left")
        if left is None or (known := left()) is None:
            return super().render(task)
        seconds, is_least = known
        return Text(f"{'>' * is_least}{timedelta(seconds=round(seconds))}", style="progress.remaining")


def bars(console: Console) -> Progress:
    """Bars of tasks that have a ``unit`` and ``notes``: count, unit, time spent and left. Without a terminal they draw
    nothing.
    """
    wide = console.width >= 120
    count = TextColumn("{task.description}"), BarColumn(16 if wide else 8), MofNCompleteColumn()
    spent = (TimeElapsedColumn(), TextColumn("so far,")) if wide else ()
    unit = TextColumn("{task.fields[unit]}")
    shown = Progress(
        *count, unit, *spent, _Left(), TextColumn("left"), console=console, disable=not console.is_terminal
    )
    shown.columns = *shown.columns, _Note(shown)
    return shown
