"""A long training: nothing grows, and the clock, its zone and the place of the folder change no bit."""

import itertools
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from processes import in_a_child
from tiers import times
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.train.observer import Observer, Stop
from unstir.train.trainer import Trainer

STEPS = times(100, 2_000)
YEARS = (-1.0, 1.0, -0.5, 0.0, 0.9, -0.9)
ZONES = ("LINT-14", "HST10HDT", "CET-1CEST", "EST5")


class Held(Observer):
    """Takes down the open files and threads of the process after each step."""

    def __init__(self):
        self.rows = []

    def step(self, step):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.rows.append((len(os.listdir("/proc/self/fd")), int(status["Threads"])))


@pytest.mark.slow
def test_open_files_and_threads_do_not_grow(make_run):
    often = {"log__every": "10 steps", "checkpoint__every": "10 steps", "grids__log_spaced": 4}
    run, store = make_run(train__length=f"{STEPS} steps", log__held_out_images=16, log__held_out_times=4, **often)

    def train():
        observer = Held()
        Trainer(run, store, observer).run()
        return json.dumps(observer.rows)

    held = np.array(json.loads(in_a_child(train)))[STEPS // 10 :]
    assert len(held) == STEPS - STEPS // 10
    assert (held.max(0) - held.min(0) <= 3).all()  # one of each is there while a checkpoint is written
    assert (np.polyfit(np.arange(len(held)), held, 1)[0] < 3 / STEPS).all()


class Disturbed(Observer):
    """Moves the clock by up to a year and into another zone, and makes the newest checkpoint the oldest."""

    def __init__(self, run, stop, monkeypatch):
        self.run, self.stop, self.monkeypatch, self.zones = run, stop, monkeypatch, itertools.cycle(ZONES)

    def step(self, step):
        if step == 6:
            self.stop.request(15)
        offset = YEARS[step % len(YEARS)] * 365 * 24 * 3600
        self.monkeypatch.setattr(time, "time", lambda now=time.time: now() + offset)
        self.monkeypatch.setenv("TZ", next(self.zones))
        time.tzset()
        for path in self.run.checkpoints.glob("*.safetensors"):
            os.utime(path, (0, 1e9 - 100 * int(path.stem[-8:])))


def test_jumps_of_the_clock_other_zones_and_a_move_change_no_bit(make_run, tmp_path, monkeypatch):
    plain, (run, store) = Trainer(*make_run("plain")), make_run()
    plain.run()
    with monkeypatch.context() as patch:
        for _ in range(2):
            stop = Stop()
            ended = Trainer(run, store, Disturbed(run, stop, patch)).run(stop)
            run = Run.open(run.path.rename(tmp_path / "elsewhere"))
    time.tzset()
    ours, theirs = (checkpoint.newest(each.checkpoints)[0] for each in (run, plain._run))
    assert ended and ours.step == theirs.step == 12 and ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[name], t) for name, t in theirs.tensors.items())
    assert [line["loss"] for line in run.metrics()] == [line["loss"] for line in Run.open(tmp_path / "plain").metrics()]
