"""A training as its files show it: the trainer knows nothing of it, and may end and go on."""

import math
import secrets
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from unstir.errors import UserError
from unstir.insight.pictures import from_file
from unstir.insight.write import write_report
from unstir.pictures.charts import evenly, mean_losses
from unstir.progress import duration, waiting
from unstir.runs.lines import seconds_left
from unstir.runs.run import LOCK, Run
from unstir.runs.timetable import all_snapshots, drawn_grid
from unstir.serve.state import Answer, Frames, State, Values, command

POINTS = 400  # of a curve
QUIET = 120.0  # seconds without a line after which a training has stopped


class TrainingValues(Values):
    """The stamp of the answer that the page has."""

    stamp: str = ""


def training(state: State, values: TrainingValues) -> Answer:
    """How far a run has come, its curves and its snapshots; less where nothing was written since the stamp."""
    run = state.run(values.model)
    files = run.log_file("metrics"), run.log_file("held_out"), run.samples
    written = [file.stat().st_mtime for file in files if file.exists()]
    stamp = " ".join(map(str, written))
    since = time.time() - max(written, default=0)
    answer = {
        "stamp": stamp,
        "written": f"{duration(since)} ago" if written else "nothing yet",
        "running": (run.path / LOCK).exists() and since < QUIET,
    }
    return answer if stamp and stamp == values.stamp else {**answer, **_progress(run)}


def newest_first(state: State) -> list[str]:
    """The ids of all runs, that which was written last before the others, and those that come with unstir last."""

    def written(name: str) -> float:
        files = Path(name), Path(name) / "metrics.jsonl"
        return max((file.stat().st_mtime for file in files if file.exists()), default=0)

    runs = state.runs()
    return sorted(runs, key=lambda id: -written(runs[id]))


def _progress(run: Run) -> Answer:
    lines = run.metrics()
    step = max((line["step"] for line in (*lines[-1:], *run.held_out()[-1:])), default=0)
    left = max(run.length - step, 0)
    seconds = seconds_left(lines, left, run.config.train.batch_size)
    points = [(lines[i]["images"], lines[i]["loss"]) for i in evenly(len(lines), POINTS)]
    held_out = [(images, loss) for images, loss, _ in mean_losses(run.held_out(), "held_out")]
    drawn = {at: file.stat().st_mtime for at, name in all_snapshots(run).items() if (file := drawn_grid(run, name))}
    return {
        "step": step,
        "length": run.length,
        "left": "finished" if not left else "not known yet" if seconds is None else waiting(seconds),
        "loss": lines[-1]["loss"] if lines else None,
        "images_per_second": lines[-1]["images_per_second"] if lines else None,
        "images": max((images for images, _ in (*points, *held_out)), default=1),
        "curves": {"a": _logarithms(points), "b": _logarithms(held_out)},
        "snapshots": [{"step": at, "images": run.images_seen(at), "drawn": since} for at, since in drawn.items()],
        "command": command("train", out=run.path) if left else "",
    }


def _logarithms(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (images, loss) as (images, log10 loss), without those that have none."""
    return [(images, math.log10(loss)) for images, loss in points if loss and 0 < loss < math.inf]


class SnapshotValues(Values):
    """A step at which a grid was drawn."""

    step: int


def snapshot(state: State, values: SnapshotValues) -> Answer:
    """The grid of a snapshot; all of them begin with the same noise."""
    run = state.run(values.model)
    file = drawn_grid(run, all_snapshots(run).get(values.step, ""))
    if file is None:
        raise UserError("step", values.step, "has no grid")
    return {"picture": from_file(file, "").source}


def report(state: State, values: Values) -> Frames:
    """The report of a run, of what was measured, at an address of this server, which is the last line."""
    yield {"address": ""}
    with TemporaryDirectory() as folder:
        page, *_ = write_report([Path(state.run(values.model).name)], Path(folder) / "report.html", measuring=False)
        content = page.read_bytes()
    yield {"address": state.keep(secrets.token_urlsafe(8), "text/html; charset=utf-8", content)}
