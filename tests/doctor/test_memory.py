"""A training loss near the floor of its set, at times where the held-out loss is well above: one finding, `overfit`."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from unstir.doctor.data import _overfit
from unstir.nn.config import ModelConfig
from unstir.theory.loss_floor import LossFloor

TIMES = [50, 350, 950]
FLOOR = LossFloor((50, 350, 950), (1e-8, 0.065, 3e-5), (1e-8, 0.001, 1e-6), (0.02,) * 128)
BOTH = (0.32, 0.069, 0.0003)  # what a network has that generalises
REMEMBERED = (0.05, 0.067, 0.0003)


def line(images, train, held_out, scatter=0.2, num=128, **changes):
    """A line of held_out.jsonl of these mean losses by time, images differing by the share ``scatter``."""
    hardness = 1 + scatter * np.linspace(-1.7, 1.7, num)
    made = {"step": images // 64, "images": images, "times": TIMES}
    for split, losses in (("train", train), ("held_out", held_out)):
        made[split], made[f"of_{split}"] = list(losses), (np.mean(losses) * hardness).tolist()
        made[f"{split}_error"] = [loss * scatter / math.sqrt(num) for loss in losses]
    return made | changes


def found(*lines, floor=FLOOR, init=""):
    config = SimpleNamespace(model=ModelConfig(), train=SimpleNamespace(init=init))
    run = SimpleNamespace(data=SimpleNamespace(counts={"train": 1000}), config=config)
    return _overfit.run(SimpleNamespace(run=run, held_out=lines, floor=floor))


def test_a_training_loss_near_its_floor_is_memory():
    (finding,) = found(line(64_000, REMEMBERED, BOTH))
    assert (finding.check, finding.severity) == ("overfit", "warning") and "remembers" in finding.says
    assert "at t = 50 the loss of training images is 0.05" in finding.evidence and "0.32" in finding.evidence
    assert finding.figure > finding.threshold > 3.5


@pytest.mark.parametrize(
    ("last", "floor"),
    [
        (line(64_000, BOTH, (0.327, 0.072, 0.0003)), FLOOR),  # which is all the same at t = 350, where all are equal
        (line(64_000, (0.2, 0.067, 0.0003), BOTH), FLOOR),  # part of the way
        (line(64_000, REMEMBERED, BOTH, scatter=3.0, num=8), FLOOR),  # who knows
        (line(64_000, REMEMBERED, BOTH), None),
        (line(64_000, REMEMBERED, BOTH, times=[50, 350, 951]), FLOOR),
        (line(64_000, REMEMBERED, BOTH, train_error=None), FLOOR),
        (line(64_000, REMEMBERED, BOTH), dataclasses.replace(FLOOR, values=(0.0, 0.065, 3e-5), errors=(0.1, 0.1, 0.1))),
    ],
)
def test_all_else_is_not(last, floor):
    assert found(last, floor=floor) == []


def test_what_was_so_before_any_image_was_seen_twice_is_no_memory():
    early, late = line(960, REMEMBERED, BOTH), line(64_000, REMEMBERED, BOTH)
    assert found(early, late) == []
    assert len(found(line(1_024, REMEMBERED, BOTH), late)) == 1
    assert len(found(early, late, init="runs/first@100")) == 1  # whose weights may have seen them often


def test_a_rise_and_a_loss_near_the_floor_are_one_finding():
    (finding,) = found(line(6_400, (0.2, 0.07, 0.0003), (0.25, 0.07, 0.0003)), line(64_000, REMEMBERED, BOTH))
    assert finding.severity == "problem" and "--checkpoint 100" in finding.remedy
    assert "rose from" in finding.evidence and "it is nearer to memory" in finding.evidence
