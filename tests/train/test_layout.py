"""Weights laid out channels last, as on CUDA, on the CPU: the same files, the same training, exactly continued."""

import pytest
import torch
from torch import nn

from unstir.diffusion.arithmetic import layout
from unstir.generate.drawing import Job, sample_batches
from unstir.runs import build, checkpoint
from unstir.runs.run import Run
from unstir.train.trainer import Trainer

LEVERS = {
    "train__optimizer": "muon", "train__power_ema": True, "train__activation_checkpointing": 2, "model__attention": [1],
}  # fmt: skip
CHANGES = pytest.mark.parametrize("changes", [{"train__optimizer": "adamw"}, LEVERS], ids=["adam", "muon"])


@pytest.fixture
def channels_last(monkeypatch):
    """channels_last(True) lays out as on CUDA what is built from then on, channels_last(False) as on the CPU."""

    def lay_out(so):
        monkeypatch.setattr(build, "layout", lambda device: layout(torch.device("cuda")) if so else layout(device))

    return lay_out


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def steps(make_run, name, num, **changes):
    """Make the run, or go on with it, for ``num`` steps, and save. Returns the trainer and what was saved."""
    run, store = make_run(name, **changes)
    trainer = Trainer(run, store)
    for _ in range(num):
        trainer.take_step()
    path = checkpoint.save(run.checkpoints, trainer.state.copied(run)())
    return trainer, checkpoint.load(path).tensors


def close(one, other, atol):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=atol, rtol=1e-4, msg=lambda text, at=name: f"{at}: {text}")


@CHANGES
def test_files_are_the_same_bytes_and_training_the_same_but_for_rounding(make_run, channels_last, changes):
    begun, after = [], []
    for so in (False, True):
        channels_last(so)
        trainer, tensors = steps(make_run, f"run{so}", 0, **changes)
        begun.append(tensors)
        kernels = [
            m.weight for m in trainer.state.net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        ]
        assert {is_channels_last(weight) for weight in kernels[1:]} == {so}  # the first one's images have one channel
        after.append(steps(make_run, f"run{so}", 3, **changes)[1])
    assert checkpoint.content_hash(begun[0]) == checkpoint.content_hash(begun[1])
    moved = max(float((after[0][name] - t).abs().max()) for name, t in begun[0].items())
    assert moved > 1e-4
    close(after[1], after[0], atol=moved * 1e-2)


@CHANGES
def test_an_interrupted_run_continues_exactly(make_run, channels_last, changes):
    channels_last(True)
    whole = steps(make_run, "whole", 6, **changes)[1]
    for num in (3, 2, 1):
        parts = steps(make_run, "parts", num, **changes)[1]
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)


@CHANGES
def test_a_run_may_change_its_layout_as_it_does_from_one_device_to_another(make_run, channels_last, changes):
    """The moments that were saved belong to the numbers that they belonged to, in whatever order these lie."""
    found = []
    for name, orders in (("one", [False, False]), ("to", [False, True]), ("fro", [True, False])):
        for so in orders:
            channels_last(so)
            trainer, tensors = steps(make_run, name, 3, **changes)
        found.append(tensors)
        for parameter in trainer.state.net.parameters():
            for moment in trainer.state.optimizer.state[parameter].values():
                assert moment.shape != parameter.shape or moment.stride() == parameter.stride()
    for other in found[1:]:
        close(other, found[0], atol=1e-5)


def test_images_are_those_of_the_other_layout_and_lie_as_ever(run, channels_last):
    drawn, hashes = [], set()
    for so in (False, True):
        channels_last(so)
        model = Run.open(run.path).model(device="cpu")
        kernel = model.denoiser.net.middle.blocks[0].first_conv.weight
        assert is_channels_last(kernel) == so
        drawn += [images for _, images in sample_batches(model, Job(num=4, chain=run.chain(), batch_size=4))]
        hashes.add(model.weights_sha256)
    assert all(images.is_contiguous() for images in drawn) and len(hashes) == 1
    torch.testing.assert_close(*drawn, atol=1e-3, rtol=0)
