"""Grids on the way are what the trained run draws afterwards; a step waits for nothing and no device."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from variety import VARIETY

from refusals import refusing
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import save_images
from unstir.runs import build
from unstir.runs.run import Run
from unstir.train import levers
from unstir.train.trainer import Trainer


def pixels(file):
    with Image.open(file) as picture:
        return picture.size, picture.tobytes()


def drawn(run, out, **which):
    save_images(run.model(**which), Job(num=4, chain=run.chain(), batch_size=4), out)
    return pixels(out / "grid.png")


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_the_last_grid_is_what_the_run_draws_from_its_averages_or_raw_weights(trained, tmp_path, decay):
    run, _ = trained(train__ema_decay=decay, train__lr=0.01)
    picture = pixels(run.samples / "images-00000096.png")
    assert drawn(run, tmp_path / "default") == picture
    assert pixels(tmp_path / "default/noise.png") == pixels(run.samples / "noise.png")
    raw = drawn(run, tmp_path / "raw", ema=False)
    assert (raw == picture) == (decay == 0)


def test_a_grid_of_the_optimal_variance_is_what_the_run_draws(trained, tmp_path):
    run, _ = trained(grids__variance="optimal", log__held_out_images=4, train__lr=0.01)
    assert drawn(run, tmp_path / "default") == pixels(run.samples / "images-00000096.png")
    assert drawn(run, tmp_path / "early", step=1) == pixels(run.samples / "images-00000008.png")
    with refusing("variance", "optimal"):
        drawn(run, tmp_path / "raw", ema=False)


def test_slim_files_draw_the_picture_of_their_milestone(trained, tmp_path):
    run, _ = trained(checkpoint__keep=1, train__lr=0.01)
    assert run.saved_steps() == [1, 12]
    assert drawn(run, tmp_path / "early", step=1) == pixels(run.samples / "images-00000008.png")
    assert drawn(run, tmp_path / "late") != drawn(run, tmp_path / "early", step=1)
    with refusing("ema", False):
        run.model(1, ema=False)
    with refusing("step", 5):
        run.model(5)


def test_a_run_rebuilds_its_denoiser_from_the_folder_alone(run, tmp_path):
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    denoiser = Run.open(moved).model().denoiser
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert denoiser(x, 7).x0.shape == x.shape
    assert not denoiser.net.training
    half = Run.open(moved).model(dtype="bfloat16").denoiser
    assert {p.dtype for p in half.net.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        ours, exact = half(x, 7), denoiser(x, 7)
    assert ours.raw.dtype == torch.float32
    assert (ours.raw - exact.raw).norm() / exact.raw.norm() < 0.05


def test_exactly_as_many_images_as_asked_each_from_its_index(run):
    job = Job(num=7, chain=dataclasses.replace(run.chain(), seed=9), batch_size=3)
    batches = list(sample_batches(run.model(), job))
    assert [list(indices) for indices, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    whole = torch.cat([images for _, images in batches])
    assert whole.shape == (7, 1, 8, 8)
    later = torch.cat([images for _, images in sample_batches(run.model(), job, first=3)])
    assert torch.equal(later, whole[3:])


def test_a_grid_is_enlarged_and_in_order(tmp_path, make_run):
    from unstir.pictures.grid import grid

    images = torch.arange(6, dtype=torch.uint8).mul(40).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    sheet = np.asarray(grid(images, nrow=3))
    assert sheet.shape == (2 + 2 * 50, 2 + 3 * 50)
    assert [sheet[20, 20 + 50 * i] for i in range(3)] == [0, 40, 80]
    assert [sheet[70, 20 + 50 * i] for i in range(3)] == [120, 160, 200]
    assert (sheet[:2] == 255).all() and (sheet[50:52] == 255).all()
    assert Image.fromarray(sheet).mode == "L"


class NoWaiting(TorchDispatchMode):
    """Raises where a tensor's value is asked for, which on a GPU would wait for all work before it."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name().split("::")[-1].split(".")[0]
        assert name not in self.WAITS, f"{name} waits for the device"
        return function(*arguments, **(options or {}))


def test_a_training_step_never_asks_for_a_value(make_run):
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        torch.ones(1).item()
    trainer = Trainer(*make_run(data__flip=True, model__num_classes=10, train__clip=0.1))
    with NoWaiting():
        for _ in range(3):
            trainer.take_step()
    assert trainer.state.window[0] == 3


def test_a_training_step_reads_no_file(make_run, monkeypatch):
    trainer = Trainer(*make_run())
    trainer.take_step()
    opened = []
    monkeypatch.setattr("builtins.open", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(Path, "open", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a))
    trainer.take_step()
    assert opened == []


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
