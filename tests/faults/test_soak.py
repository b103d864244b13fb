"""A short soak: nothing grows, a moved run and a clock that jumps change no bit; the long one is benchmarks/soak.py."""

import time

import torch

from conftest import without_charts
from soak import slope, soak
from tiers import times
from unstir.runs import checkpoint
from unstir.train.observer import Stop
from unstir.train.trainer import Trainer

STEPS, LOOKS = times(200, 2_000), 4


def test_jumps_of_the_clock_and_a_move_change_no_bit_and_nothing_grows(tmp_path, monkeypatch):
    without_charts(monkeypatch)
    disturbed, lives = soak(tmp_path / "a", STEPS, LOOKS)
    plain, _ = soak(tmp_path / "b", STEPS, LOOKS, disturbed=False)
    ours, theirs = (checkpoint.newest(run.checkpoints)[0] for run in (disturbed, plain))
    assert ours.step == theirs.step == STEPS and ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[name], t) for name, t in theirs.tensors.items())
    assert [(line["step"], line["loss"]) for line in disturbed.metrics()] == [
        (line["step"], line["loss"]) for line in plain.metrics()
    ]
    assert len(lives) == 2 and disturbed.path.parent.name == "elsewhere"
    for rows in lives:
        for column in (2, 3):  # open files and threads: one of each is there while a checkpoint is written
            held = [row[column] for row in rows[len(rows) // 10 :]]
            assert max(held) - min(held) <= 3
            assert slope(rows, column)[0] < 3 * 1000 / STEPS


def test_a_change_of_the_time_zone_changes_no_bit(make_run, monkeypatch):
    """A run goes on in other places; before the last step of each the clock of the machine is moved to another zone."""
    without_charts(monkeypatch)
    zones = ("LINT-14", "HST10HDT", "CET-1CEST")
    whole, parts = Trainer(*make_run("whole")), make_run("parts")
    whole.run()
    seen = set()
    try:
        for zone, until in zip(zones, (4, 8, 12), strict=True):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            seen.add(time.localtime(0)[:5])
            trainer, stop = Trainer(*parts), Stop()
            while trainer.state.step < until:
                trainer.take_step()
                if trainer.state.step == until - 1:
                    monkeypatch.setenv("TZ", "EST5")
                    time.tzset()
            stop.request(15)
            trainer.run(stop)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert len(seen) == 3 and trainer.state.step == 12
    ours, theirs = (checkpoint.newest(run.checkpoints)[0].tensors for run in (parts[0], whole._run))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], t) for name, t in theirs.items())
