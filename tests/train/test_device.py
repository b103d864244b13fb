"""A step on a device that is not the CPU: torch's meta device has no numbers, so whoever asks for one is found out."""

import pytest
import torch
from variety import VARIETY

from unstir.runs import build
from unstir.train import levers
from unstir.train.trainer import Trainer

META = torch.device("meta")


@pytest.fixture
def on_meta(make_run, monkeypatch):
    """on_meta(**changes) -> the trainer of a tiny run whose images, weights and all else lie on the meta device."""

    def trainer(**changes):
        made = make_run(**changes)
        monkeypatch.setattr(build, "device", lambda name: META)
        monkeypatch.setattr(levers, "_fits", lambda images, device: True)
        return Trainer(*made)

    return trainer


@pytest.mark.parametrize("changes", VARIETY.values(), ids=VARIETY)
def test_a_gradient_needs_no_number_of_the_device_and_none_of_the_cpu(on_meta, changes):
    trainer = on_meta(**changes)
    trainer.state.net.train()
    found = trainer._learn_from(trainer._part)
    assert [each.device for each in found] == [META] * 3
    assert all(p.grad is not None and p.grad.device == META for p in trainer.state.net.parameters())


def test_what_the_meta_device_notices():
    x = torch.empty(3, device="meta")
    for wrong in (lambda: x + torch.ones(3), lambda: x.sum().item(), lambda: bool(x[0] > 0), lambda: x.tolist()):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            wrong()
