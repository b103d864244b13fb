"""The lines of metrics.jsonl and the clock they are timed by; how any file of lines is kept and added to."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unstir.errors import UserError
from unstir.runs.files import write_text
from unstir.runs.run import Run
from unstir.train.state import WINDOW, State

TIMING_FIELDS = ("images_per_second", "seconds")
"""The fields of a line that depend on the clock; all others are the same however often a run was interrupted."""


class Record:
    """Writes a run's metrics. Made when training starts or continues, it drops the lines of steps now repeated."""

    def __init__(self, run: Run, state: State) -> None:
        self._run, self._state = run, state
        keep_lines(run.metrics_file, run.metrics(), state.step)
        self._seconds_before = state.seconds
        self._began = self._line_began = time.perf_counter()
        self._aside_for = 0.0
        self._line_step = state.step

    def write_line(self, lr: float, ema_decay: float) -> dict[str, Any]:
        """Add the line of the steps since the last, and begin the next one; this waits for the device."""
        state, batch = self._state, self._run.config.train.batch_size
        sums = dict(zip(WINDOW, state.window.tolist(), strict=True))
        steps = sums.pop("steps")
        means = {name: value / steps if steps else None for name, value in sums.items()}
        if self._run.config.loss.is_simple:
            del means["mse"]  # it is the loss itself
        if self._run.config.loss.objective == "simple":
            del means["bits"]
        state.window.zero_()
        now = time.perf_counter()
        busy = max(now - self._line_began - self._aside_for, 1e-9)
        state.seconds = self._seconds_before + now - self._began
        line = {
            "step": state.step,
            "epoch": (state.step - 1) // self._run.steps_per_epoch,
            "images": state.step * batch,
            **means,
            "lr": lr,
            "ema_decay": ema_decay,
            "skipped": int(state.counters[0].item()),
            "images_per_second": round((state.step - self._line_step) * batch / busy, 1),
            "seconds": round(state.seconds, 2),
        }
        append_line(self._run.metrics_file, line)
        self._line_began, self._aside_for, self._line_step = now, 0.0, state.step
        return line

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Time spent in this block (grids, checkpoints) does not count against the images per second."""
        began = time.perf_counter()
        yield
        now = time.perf_counter()
        self._aside_for += now - began
        self._state.seconds = self._seconds_before + now - self._began

    def sync(self) -> None:
        """Make the lines written so far survive a power cut, before a checkpoint says that they exist."""
        with self._run.metrics_file.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())


def keep_lines(file: Path, lines: Sequence[Mapping[str, Any]], step: int) -> list[Mapping[str, Any]]:
    """Rewrite a file of lines without those of later steps, which are taken again; returns the lines that stay."""
    kept = [line for line in lines if line["step"] <= step]
    write_text(file, "".join(json.dumps(line) + "\n" for line in kept))
    return kept


def append_line(file: Path, line: Mapping[str, Any], durable: bool = False) -> None:
    """Add a line of JSON, ``durable`` against a power cut too; UserError where it cannot be written."""
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        raise UserError(
            f"cannot write {file}: {error.strerror}; mend that and run the same command again to continue from the "
            "last checkpoint"
        ) from None
