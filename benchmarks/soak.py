"""A long training of a tiny network: do its memory, open files and threads grow, and does anything rest on the clock?

    python benchmarks/soak.py FOLDER [--steps 10000] [--looks 40]

Trains digits with checkpoints every hundredth of the run, and with grids and held-out losses at ``looks`` snapshots.
Half-way it is stopped, its folder moved to another path, and continued from there. Ten times on the way the clock jumps
by up to a year, to and fro: what Python's `time` says of the calendar is replaced, and files get times of another year.
Prints slopes over each life, from a tenth of it on, with their standard errors; a life is what one process does.
"""

import argparse
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unstir.data import Store, pack
from unstir.runs.run import Run
from unstir.runs.toml import from_dict
from unstir.train.launch import open_run
from unstir.train.observer import Observer, Stop
from unstir.train.trainer import Trainer

YEAR = 365 * 24 * 3600
JUMPS = (-1.0, 1.0, -0.5, 0.0, 0.9, -0.9, 0.1, -1.0, 1.0, 0.0)  # years, each for a tenth of the steps


def config(store: Path, steps: int, looks: int) -> dict[str, Any]:
    """A tiny network with everything that a training does beside its steps."""
    return {
        "data": {"source": "digits", "channels": 1, "flip": True, "store": str(store)},
        "model": {"in_channels": 1, "channels": 8, "mults": [1, 2], "num_blocks": 1, "groups": 4, "dropout": 0.1},
        "diffusion": {"T": 20, "options": {"beta_1": 0.01, "beta_T": 0.3}},
        "train": {
            "length": f"{steps} steps",
            "batch_size": 8,
            "micro_batch": 0,
            "warmup": "10 steps",
            "dtype": "float32",
        },
        "log": {"every": f"{max(1, steps // 200)} steps", "held_out_images": 16, "held_out_times": 4},
        "checkpoint": {"every": f"{max(20, steps // 100)} steps"},
        "grids": {"num": 4, "steps": 3, "log_spaced": looks},
    }


@contextmanager
def clock(offset: list[float]):
    """Shift what `time` says of the calendar by ``offset[0]`` seconds in this block."""
    real = {name: getattr(time, name) for name in ("time", "gmtime", "localtime", "strftime")}

    def shifted(name):
        return lambda seconds=None: real[name](real["time"]() + offset[0] if seconds is None else seconds)

    def strftime(form: str, of: Any = None) -> str:
        return str(real["strftime"](form, of if of is not None else time.localtime()))

    try:
        time.time = lambda: real["time"]() + offset[0]
        time.gmtime, time.localtime, time.strftime = shifted("gmtime"), shifted("localtime"), strftime
        yield
    finally:
        for name, function in real.items():
            setattr(time, name, function)


class Watch(Observer):
    """Takes down what the process holds, lets the clock jump, and asks to stop half-way."""

    def __init__(self, run: Path, steps: int, stop: Stop, at: int, offset: list[float], jumps: bool) -> None:
        self.run, self.steps, self.stop, self.at, self.offset, self.jumps = run, steps, stop, at, offset, jumps
        self.rows: list[tuple[int, float, int, int]] = []

    def step(self, step: int) -> None:
        """Measure at every two-hundredth of the run."""
        if step == self.at:
            self.stop.request(15)
        if step % max(1, self.steps // 200) == 0:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            files = len(list(Path("/proc/self/fd").iterdir()))
            row = (step, int(status["RssAnon"].split()[0]) / 1024, files, int(status["Threads"]))
            self.rows.append(row)
        if self.jumps and step % max(1, self.steps // 10) == 0:
            self.offset[0] = JUMPS[step * 10 // self.steps % len(JUMPS)] * YEAR
            for path in (self.run / "checkpoints").glob("*.safetensors"):
                os.utime(path, (time.time(), time.time() - 100 * int(path.stem[-8:])))  # the newest is the oldest


def soak(folder: Path, steps: int, looks: int, disturbed: bool = True) -> tuple[Run, list[list[tuple[Any, ...]]]]:
    """Train, where ``disturbed`` with jumps of the clock and a move half-way; the run, and what each life held."""
    store = pack("digits", folder / "digits")
    settings = from_dict(config(store.path, steps, looks), "soak")
    path, lives, offset = folder / "first", list[list[tuple[Any, ...]]](), [0.0]
    open_run(settings, path, store)
    with clock(offset):
        for end in (steps // 2, 0) if disturbed else (0,):
            stop = Stop()
            watch = Watch(path, steps, stop, end, offset, disturbed)
            finished = Trainer(Run.open(path), Store.open(store.path), watch).run(stop)
            lives.append(watch.rows)
            if not finished:
                moved = folder / "elsewhere" / "second"
                moved.parent.mkdir()
                path = path.rename(moved)
    run = Run.open(path)
    assert finished and len(list(run.checkpoints.glob("*.safetensors"))) == run.config.checkpoint.keep
    return run, lives


def slope(rows: list[tuple[Any, ...]], column: int) -> tuple[float, float]:
    """Growth per 1,000 steps from a tenth of a life on, and its standard error."""
    rows = rows[len(rows) // 10 :]
    x, y = (np.array([row[i] for row in rows], float) for i in (0, column))
    (rate, level), away = np.polyfit(x, y, 1), x - x.mean()
    error = np.sqrt(np.square(y - rate * x - level).sum() / (len(x) - 2) / np.square(away).sum())
    return 1000 * float(rate), 1000 * float(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--looks", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, cpu = time.perf_counter(), time.process_time()
    run, lives = soak(options.folder, options.steps, options.looks)
    spent = f"{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU time"
    print(f"{options.steps:,} steps, {len(run.metrics())} log lines, {len(run.held_out())} looks ({spent})")
    for number, rows in enumerate(lives, 1):
        for column, what in ((1, "MB of own memory"), (2, "open files"), (3, "threads")):
            rate, error = slope(rows, column)
            held = [row[column] for row in rows]
            says = f"{held[len(held) // 10]:.1f} to {held[-1]:.1f}, {rate:+.3f} per 1,000 steps (error {error:.3f})"
            print(f"life {number}: {what}: {says}")
    print(json.dumps({"lives": [rows[:: max(1, len(rows) // 10)] for rows in lives]}))


if __name__ == "__main__":
    main()
