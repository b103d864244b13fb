"""Data of scientists through everything: 5 channels of float32, 24x40, values missing, in units of their own."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import unstir
from refusals import refusing
from unstir.chain import Chain
from unstir.data import pack
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.likelihood import variational_bound
from unstir.diffusion.loss import denoising_loss
from unstir.errors import UserError
from unstir.generate import arrays
from unstir.generate.drawing import Job
from unstir.generate.folder import drawn_in, read_images
from unstir.generate.sampling import sample
from unstir.metrics.likelihood import Protocol, describe, split_likelihood
from unstir.nn.config import ModelConfig
from unstir.runs.config import Config
from unstir.runs.sections import DataConfig, DiffusionConfig, GridConfig, LogConfig, TrainConfig
from unstir.train.launch import train_run
from unstir.train.trainer import Trainer

UNITS = np.array([1, 10, 100, 0.1, 1e-3], np.float32)[:, None, None]


def values(num=24):
    """float32 [num, 5, 24, 40], a channel in units of its own, a tenth of the values missing."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(num, 5, 24, 40)).astype(np.float32) * UNITS + 5
    return np.where(rng.random(drawn.shape) < 0.1, np.float32(np.nan), drawn)


CONFIG = Config(
    data=DataConfig(channels=5, flip=True),
    model=ModelConfig(in_channels=5, channels=8, groups=4, mults=(1, 2), attention=(), num_blocks=1),
    diffusion=DiffusionConfig(T=10),
    train=TrainConfig(length="3 steps", batch_size=4, warmup="1 step", device="cpu", augment=0.5),
    log=LogConfig(held_out_images=2, held_out_times=2),
    grids=GridConfig(num=4, sampler="ddim", steps=2, channels=(4, 1, 0)),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three steps, and its store."""
    folder = tmp_path_factory.mktemp("science")
    np.save(folder / "x.npy", values())
    store = pack(folder / "x.npy", folder / "store")
    config = replace(CONFIG, data=replace(CONFIG.data, source=str(folder / "store")))
    return train_run(config, folder / "run").run, store


def test_losses_are_of_the_values_that_are_there(trained):
    run, store = trained
    lines = run.metrics()
    assert all(np.isfinite(line["loss"]) for line in lines) and len(run.held_out()) > 0
    examples = Trainer(run, store).examples(slice(0, 4))
    assert 0.05 < (~examples.present).float().mean() < 0.5 and (examples.x_0[~examples.present] == 0).all()
    denoiser = run.model(device="cpu").denoiser
    x_0 = torch.rand(2, 5, 24, 40) * 2 - 1
    present = torch.rand(x_0.shape) < 0.5
    x_0, t, eps = torch.where(present, x_0, 0.0), torch.tensor([3, 7]), torch.randn(x_0.shape)
    of_there = denoising_loss(denoiser, x_0, t, eps, present=present).mse
    raw = denoiser(denoiser.process.diffuse(x_0, t, eps), t, None, None).raw
    for number in range(2):
        errors = (raw - eps)[number].square()[present[number]]
        torch.testing.assert_close(of_there[number], errors.mean())


def test_samples_come_back_in_units_the_same_after_a_kill_and_in_a_longer_job(trained, tmp_path):
    run, store = trained
    model = run.model(device="cpu")
    job = Job(num=6, chain=Chain("ddim", steps=2), batch_size=4)
    done = sample(model, job, tmp_path / "six", animation=tmp_path / "a.webp", strip=tmp_path / "a.png")
    six = np.load(done.folder / "images.npy")
    assert six.dtype == np.float32 and six.shape == (6, 5, 24, 40) and not list(done.folder.glob("0*.png"))
    low, high = (np.array(ends)[:, None, None] for ends in (store.scale.low, store.scale.high))
    assert (six >= low - 1e-3 * (high - low)).all() and (six <= high + 1e-3 * (high - low)).all()
    (done.folder / "images.npy").unlink()  # as where it was killed before
    sample(model, replace(job, num=9), done.folder)
    nine = np.load(done.folder / "images.npy")
    np.testing.assert_array_equal(nine[:4], six[:4])
    np.testing.assert_allclose(nine[4:6], six[4:], rtol=1e-4, atol=1e-4 * float((high - low).max()))
    assert {path.name for path in done.folder.iterdir()} >= {"images.npy", "grid.png", "noise.png", "settings.json"}
    assert not list(done.folder.glob(".batch*"))
    with pytest.raises(UserError):
        sample(model, job, tmp_path / "png", format="png")


def test_an_array_of_other_weights_is_left_out_and_drawn_anew(trained, tmp_path, caplog):
    run, _ = trained
    model, job = run.model(device="cpu"), Job(num=5, chain=Chain("ddim", steps=2), batch_size=2)
    ours = sample(model, job, tmp_path / "ours").folder
    images = np.load(ours / "images.npy")
    assert drawn_in(ours) == 5 and torch.equal(read_images(ours, 3), torch.from_numpy(images[:3]))
    with refusing("num", 9, {"num": 5}):
        read_images(ours, 9)
    np.save(ours / "images.npy", images[::-1])
    assert drawn_in(ours) == 0
    with pytest.raises(OSError):
        read_images(ours, 5)
    assert "images.npy" in caplog.text
    sample(model, job, ours)
    np.testing.assert_array_equal(np.load(ours / "images.npy"), images)


def test_batches_of_a_job_whose_settings_are_gone_or_of_other_weights_are_not_taken(trained, tmp_path):
    run, _ = trained
    model, job = run.model(device="cpu"), Job(num=3, chain=Chain("ddim", steps=2), batch_size=2)
    images = np.load(sample(model, job, tmp_path / "right").folder / "images.npy")
    zeros, out = torch.zeros(2, *model.shape), tmp_path / "out"
    out.mkdir()
    arrays.save(out, 0, zeros, tmp_path, model)  # as a killed job leaves them, and rm out/* removes the settings
    sample(model, job, out)
    np.testing.assert_array_equal(np.load(out / "images.npy"), images)
    (out / "images.npy").unlink()
    arrays.save(out, 0, zeros, tmp_path, replace(model, weights_sha256="0" * 64))
    sample(model, job, out)
    np.testing.assert_array_equal(np.load(out / "images.npy"), images)


def test_the_bound_is_of_a_density_of_the_values_that_are_there(trained):
    run, store = trained
    result = split_likelihood(run.model(device="cpu"), store, Protocol())
    assert np.isfinite(result.bits_per_dim) and "data's units" in describe(result)
    half = (np.array(store.scale.high) - np.array(store.scale.low)) / 2
    there = ~store.images("held_out").isnan()
    counts = there.flatten(2).sum(2).double().numpy()
    expected = (counts @ np.log2(half) / counts.sum(1)).mean()
    assert result.protocol["unit_bits"] == pytest.approx(expected)


def test_values_that_are_missing_change_no_term_of_the_bound(trained):
    """A network that looks at each value alone bounds an image of half the values as the half of them."""
    run, _ = trained
    process = run.model(device="cpu").process

    def alone(x_t, t):
        return Prediction(0.9 * x_t, x_t)

    noise = {t: torch.randn(3, 2, 4, 6) for t in range(1, process.T + 1)}
    x_0, present = torch.rand(3, 2, 4, 6) - 0.5, torch.zeros(3, 2, 4, 6, dtype=torch.bool)
    present[:, :, :, :3] = True
    masked = variational_bound(
        alone, process, torch.where(present, x_0, 0.0), noise.__getitem__, discretised=False, present=present
    )
    half = variational_bound(alone, process, x_0[..., :3].contiguous(), lambda t: noise[t][..., :3], discretised=False)
    torch.testing.assert_close(masked.bits_per_dim, half.bits_per_dim)


def test_missing_values_are_filled_in_and_single_images_have_a_likelihood_in_units(trained, tmp_path, command):
    run, _ = trained
    images, file = values(3), tmp_path / "new.npy"
    np.save(file, images)
    scored = unstir.likelihood(run.model(device="cpu"), torch.from_numpy(images))
    command.done("likelihood", run.path, "--images", file, "--per-image", tmp_path / "new.csv")
    table = np.genfromtxt(tmp_path / "new.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["bits_per_dim"], scored.bits_per_dim, rtol=1e-6)
    asked = "--num", 2, "--steps", 3, "--spread", "--out", tmp_path / "filled"
    command.done("edit", "inpaint", run.path, file, *asked)
    made, there = np.load(tmp_path / "filled/results.npy"), ~np.isnan(images)
    assert made.shape == (3, 2, 5, 24, 40) and made.dtype == np.float32 and np.isfinite(made).all()
    np.testing.assert_array_equal(made[:, 0][there], images[there])
    for value in (np.nan, np.inf):
        with refusing("images"):
            unstir.likelihood(run.model(device="cpu"), torch.full((2, 5, 24, 40), value), calls=2)
    deviation = np.load(tmp_path / "filled/deviation.npy")
    assert (deviation[there] == 0).all() and (deviation[~there] > 0).mean() > 0.9
    with refusing("mask"):
        unstir.inpaint_stack(
            run.model(device="cpu"), torch.from_numpy(np.nan_to_num(images)), None, Job(num=1, chain=run.chain())
        )


def test_a_report_says_the_sides_and_channels_of_its_images_and_shows_the_channels_of_its_grids(
    trained, tmp_path, monkeypatch
):
    shutil.copytree(trained[0].path, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    unstir.evaluate_run("run", unstir.EvaluationRequest(num=12, seeds=1, chain={"steps": 2}))
    with Image.open(next(tmp_path.glob("run/evaluation/*-pairs.png"))) as picture:
        assert picture.mode == "RGB"  # three channels, not one
    (page,) = unstir.write_report(["run"], measuring=False)
    text = page.read_text()
    assert text.count("24x40 with 5 channels of float32") == 2 and "sliced Wasserstein" in text
