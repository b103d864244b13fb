"""What only a GPU can show: a step does not wait for it, and an interrupted run continues on it bit for bit."""

import pytest
import torch

from unstir.runs import checkpoint
from unstir.train.observer import Stop
from unstir.train.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


LEVERS = {
    "train__optimizer": "muon", "train__augment": 0.5, "train__power_ema": True, "loss__times": "laplace",
    "loss__input_perturbation": 0.1, "loss__noise_choices": 4,
}  # fmt: skip
CHANGES = pytest.mark.parametrize("changes", [{}, LEVERS], ids=["plain", "levers"])


@CHANGES
def test_a_step_does_not_wait_for_the_device(make_run, changes):
    run, store = make_run(train__device="cuda", train__dtype="auto", **changes)
    trainer = Trainer(run, store)
    trainer.take_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(run.steps_per_epoch + 1):  # into the next epoch, whose order is drawn
            trainer.take_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@CHANGES
def test_it_continues_bit_for_bit(make_run, changes):
    runs = {}
    for name, stops in (("whole", []), ("parts", [3, 7])):
        for at in [*stops, None]:
            run, store = make_run(name, train__device="cuda", train__dtype="auto", **changes)
            trainer, stop = Trainer(run, store), Stop(install=False)
            while at is not None and trainer.state.step < at:
                trainer.take_step()
            if at is not None:
                stop.request(2)
            trainer.run(stop)
        runs[name] = checkpoint.newest(run.checkpoints)[0].tensors
    assert all(torch.equal(runs["whole"][key], runs["parts"][key]) for key in runs["whole"])
