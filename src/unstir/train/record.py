"""What training writes besides weights and grids: the lines of metrics.jsonl, timed by a clock, and its curves."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unstir.pictures.charts import held_out_curves, training_curves
from unstir.progress import counted
from unstir.runs import checkpoint, lines, resources
from unstir.runs.files import replacing
from unstir.runs.run import Run
from unstir.train.state import WINDOW, State

logger = logging.getLogger(__name__)

TIMING_FIELDS = ("images_per_second", "seconds", "peak_memory_bytes")
"""The fields that depend on clock and process; all others are the same however often a run was interrupted."""


class Record:
    """Writes a run's metrics where it is to, and keeps the clock from the moment it is made."""

    def __init__(self, run: Run, state: State, writes: bool = True) -> None:
        self._run, self._state, self._writes = run, state, writes
        self._seconds_before = state.seconds
        self._began = self._line_began = time.perf_counter()
        self._paused_for = 0.0
        self._line_step = state.step

    def start(self) -> None:
        """Drop the lines of steps that will be taken again, of metrics.jsonl and the damaged ones of events.jsonl.

        A run that has a log and begins at step 0 has lost its checkpoints, or was killed before the next; it says so.
        """
        if not self._state.step and (earlier := self._run.metrics()):
            steps = counted(earlier[-1]["step"], "step")
            why = "" if checkpoint.listed(self._run.checkpoints) else ": it has no checkpoint to go on from"
            logger.warning(f"{self._run.path} begins at step 0 again and drops {steps} of its log{why}")
        cut_log(self._run, "metrics", self._state.step, self._state.logged)
        cut_log(self._run, "events", None)

    def write_line(self, lr: float, ema_decay: float) -> dict[str, Any]:
        """Add the line of the steps since the last, and begin the next one; this waits for the device."""
        state, config = self._state, self._run.config
        sums = dict(zip(WINDOW, state.window.tolist(), strict=True))
        steps = sums.pop("steps")
        means = {name: value / steps if steps else None for name, value in sums.items()}
        if config.loss.is_simple:
            del means["mse"]  # it is the loss itself
        if not config.loss.has_bound:
            del means["bits"]
        state.window.zero_()
        now = time.perf_counter()
        busy = max(now - self._line_began - self._paused_for, 1e-9)
        state.seconds = self._seconds_before + now - self._began
        per_second = (state.step - self._line_step) * config.train.batch_size / busy
        line = {
            "step": state.step,
            "epoch": (state.step - 1) // self._run.steps_per_epoch,
            "images": state.step * config.train.batch_size,
            "steps": int(steps),
            **means,
            "lr": lr,
            "ema_decay": ema_decay,
            "skipped": int(state.counters[0].item()),
            "images_per_second": round(per_second, 1),
            "seconds": round(state.seconds, 2),
            "peak_memory_bytes": resources.peak(state.window.device),
        }
        if self._writes:
            lines.append(self._run.metrics_file, line)
        state.logged = state.step
        self._line_began, self._paused_for, self._line_step = now, 0.0, state.step
        return line

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in this block (snapshots, checkpoints) does not count against the images per second."""
        began = time.perf_counter()
        yield
        now = time.perf_counter()
        self._paused_for += now - began
        self._state.seconds = self._seconds_before + now - self._began

    def sync(self) -> None:
        """Make the lines written so far survive a power cut, before a checkpoint says that they exist."""
        lines.sync(self._run.metrics_file)


def cut_log(run: Run, name: str, step: int | None, due: int = 0) -> list[dict[str, Any]]:
    """Rewrite a log without the lines of steps after ``step``, which are taken again; returns those that stay.

    Where lines are damaged, a copy of the file is kept, which is logged, as it is where the line of step ``due`` is
    missing, that a checkpoint counts on. A ``step`` of None keeps every good line.
    """
    log = run.log(name)
    kept = [line for line in log.lines if step is None or line["step"] <= step]
    if log.damaged:
        copy = lines.copy_aside(log.file)
        logger.warning(f"{log.problem}; a copy is kept as {copy.name}, and the {len(log.lines)} good lines stay in use")
    if due and (missing := lines.cut_short(log, due)):
        logger.warning(missing)
    if log.damaged or (step is not None and log.file.exists()):
        lines.write(log.file, kept)
    return kept


def draw_charts(run: Run) -> None:
    """Draw curves.png and losses.png from the lines of metrics.jsonl and held_out.jsonl, where there are any."""
    if lines := run.metrics():
        with replacing(run.path / "curves.png") as partial:
            training_curves(lines, partial)
    if lines := run.held_out():
        with replacing(run.path / "losses.png") as partial:
            held_out_curves(lines, partial)
