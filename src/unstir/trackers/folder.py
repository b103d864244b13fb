"""A run's folder as rows, one for each step that has something to show, in the order of the steps."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unstir.runs.kinds import is_figure
from unstir.runs.lines import decode

BITS = "bits", "bits_error", "bits_train", "bits_train_error"
CHARTS = "curves", "losses"


@dataclass(frozen=True)
class Row:
    """What is known of optimiser step number ``step``, after so many ``seconds`` of training.

    ``scalars`` are numbers by name, "FILE/KEY" of FILE.jsonl; ``pictures`` are PNG files by name.
    """

    step: int
    seconds: float = 0.0
    scalars: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)


class Rows:
    """The rows of a run in ``folder``, each given once, when it is whole. ``snapshots`` are the names of its grids."""

    def __init__(self, folder: Path, snapshots: Mapping[int, str]) -> None:
        self._folder = folder
        self._metrics, self._held_out = _Tail(folder / "metrics.jsonl"), _Tail(folder / "held_out.jsonl")
        self._missing = {step: folder / "samples" / f"{name}.png" for step, name in snapshots.items()}
        self._before = {step for step, file in self._missing.items() if file.exists()}
        self._rows: dict[int, Row] = {}
        self._passed, self._logged, self._drawn, self._seconds = -1, -1, -1, 0.0

    def new(self, ended: bool = False) -> list[Row]:
        """The rows that are whole since the last call; ``ended``: nothing more is written, so that all are.

        A row is whole once the grid of its snapshot is drawn, which comes last, or where training has passed it.
        """
        drawn = self._before | self._there()  # before the logs are read, which then have all of these steps
        for line in self._metrics.new():
            row = self._row(line["step"])
            row.scalars.update({f"metrics/{key}": line[key] for key in line if key != "step" and _shown(line[key])})
            self._passed = max(self._passed, row.step)
        for line in self._held_out.new():
            self._row(line["step"]).scalars.update({f"held_out/{key}": loss for key, loss in _losses(line).items()})
        self._logged = max(self._logged, *self._rows, -1)
        pictured = self._picture()
        self._passed = max(self._passed, *(pictured & drawn), -1)
        waiting = self._missing.keys() | (pictured - drawn)
        whole = [step for step in sorted(self._rows) if ended or step < self._passed or step not in waiting]
        return [self._timed(self._rows.pop(step)) for step in whole]

    def _row(self, step: int) -> Row:
        return self._rows.setdefault(step, Row(step))

    def _there(self) -> set[int]:
        """The steps whose grids are drawn. One that was there at first and that no log has reached is of a training
        that went back to an earlier checkpoint: it counts once that comes to its step again.
        """
        there = {step for step, file in self._missing.items() if file.exists()}
        return {step for step in there if step <= self._logged or step not in self._before}

    def _picture(self) -> set[int]:
        """Add the grids drawn since, and to the last of all the charts, which are as old; return their steps."""
        drawn = self._there()
        for step in drawn:
            self._row(step).pictures["samples"] = self._missing.pop(step)
        if drawn and max(drawn) > self._drawn:
            self._drawn = max(drawn)
            charts = {name: self._folder / f"{name}.png" for name in CHARTS}
            self._row(self._drawn).pictures.update({name: file for name, file in charts.items() if file.exists()})
        return drawn

    def _timed(self, row: Row) -> Row:
        """The row; one without a line of metrics is as old as the last that had one."""
        self._seconds = max(self._seconds, row.scalars.get("metrics/seconds", 0.0))
        return replace(row, seconds=self._seconds)


def _shown(value: Any) -> bool:
    return value is not None and is_figure(value)


def _losses(line: dict[str, Any]) -> dict[str, float]:
    """The losses of a line of held_out.jsonl, means over its times, and its bounds in bits per dimension."""
    means = {"loss": line.get("held_out"), "loss_train": line.get("train")}
    return {name: sum(values) / len(values) for name, values in means.items() if values} | {
        name: line[name] for name in BITS if _shown(line.get(name))
    }


class _Tail:
    """The good lines of a log, as they are added."""

    def __init__(self, file: Path) -> None:
        self._file, self._at = file, 0

    def new(self) -> list[dict[str, Any]]:
        """The lines since the last call; a damaged one, and one that is being written, is left out."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._at)
                text = stream.read()
        except FileNotFoundError:
            return []
        text = text[: text.rfind(b"\n") + 1]
        self._at += len(text)
        found = []
        for line in text.splitlines():
            with suppress(ValueError):
                found.append(decode(line))
        return found
