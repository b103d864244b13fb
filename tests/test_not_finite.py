"""A network that answers with NaN or an infinity: it is said, with the image and t, and nothing is written."""

import math

import pytest
import torch

from refusals import mistake
from unstir.chain import SAMPLERS, Chain
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.draw import draw, starting_noise
from unstir.errors import NotFiniteError
from unstir.generate import folder as folders
from unstir.pixels import to_uint8
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.theory.process import Process
from unstir.theory.schedule import linear
from unstir.train.trainer import Trainer

LABELLED = {"model__num_classes": 10, "train__condition_dropout": 0.5}


def spoil(run):
    """Let every saved file of a run answer with NaN for the first pixel."""
    for folder in (run.checkpoints, run.weights):
        for _, path in checkpoint.listed(folder):
            found = checkpoint.load(path)
            for name, tensor in found.tensors.items():
                if name.endswith("output_conv.bias") and "optimizer" not in name:
                    tensor.fill_(math.nan)
            checkpoint.save(folder, found)
    return run


def spoilt_at(process, when, value=math.nan):
    """An estimate that is 0, but for a value of image 2 of the batch at times up to ``when``."""

    def denoise(x_t, t):
        x0 = torch.zeros_like(x_t)
        if t <= when:
            x0[2, 0, 3, 1] = value
        return Prediction(x0, x_t.clone())

    return denoise


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_every_sampler_names_the_image_and_the_time(sampler, value):
    process, indices = Process(linear(100)), torch.arange(40, 44)
    denoise, x_T = spoilt_at(process, 55, value), starting_noise(0, indices, (1, 8, 8))
    taken = []
    with pytest.raises(NotFiniteError, match=r"t=\d+ of image 42,") as raised:
        taken += (step.t for step in draw(denoise, process, x_T, indices, Chain(sampler, steps=10)))
    t = int(str(raised.value).split("t=")[1].split()[0])
    assert t <= 55 and all(taken_t > t - 12 for taken_t in taken)
    assert list(draw(spoilt_at(process, 0), process, x_T, indices, Chain(sampler, steps=10)))[-1].x.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_pixel_is_made_of_what_is_no_number(value):
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 2, 2] = value
    assert "finite" in str(mistake(to_uint8, images))


def test_commands_say_it_and_write_nothing(trained, unstir, tmp_path):
    run, _ = trained(**LABELLED)
    spoil(run)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for ask in (
        ("sample", run.path, "--num", 3, "--out", "made"),
        ("sample", run.path, "--num", 2, "--compare", "ddim:3,heun:4", "--out", "made"),
        ("sample", run.path, "--num", 2, "--guidance", 2, "--no-clip", "--out", "made"),
        ("edit", "vary", run.path, "a.png"),
        ("edit", "inpaint", run.path, "a.png", "--box", 0, 4, 8, 4),
        ("edit", "invert", run.path, "a.png"),
        ("edit", "blend", run.path, "a.png", "b.png"),
        ("edit", "morph", run.path, "--labels", 1, 2),
        ("evaluate", run.path, "--num", 20, "--seeds", 1, "--no-memorisation"),
        ("likelihood", run.path, "--num", 4, "--calls", 5),
    ):
        status, out, err = unstir(*ask)
        assert status == 2 and out == "" and "Traceback" not in err, (ask, out, err)
        assert " at t=" in err and " of image " in err, (ask, err)
        new = {path for path in tmp_path.rglob("*") if path.is_file() and path not in before}
        assert not {path for path in new if "features" not in str(path) and "classifier" not in str(path)}, (ask, new)
    assert not (tmp_path / "made").exists()


def test_images_made_before_stay_when_a_later_batch_is_not_finite(run, unstir, tmp_path, watched):
    watched(folders, "batch", NotFiniteError("no finite number"), lambda calls: len(calls) == 2)
    assert unstir("sample", run.path, "--num", 4, "--batch-size", 2, "--out", "made")[0] == 2
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"000000.png", "000001.png", "settings.json"}


def test_training_goes_on_without_the_grid_and_says_so_once(make_run, logged):
    run, store = make_run(train__length="6 steps", grids__log_spaced=6)
    made = Trainer(run, store)
    with torch.no_grad():
        made.state.average.output_conv.bias.fill_(math.nan)  # of which grids are drawn; the weights themselves are well
    assert made.run() and made.finished
    assert made.state.step == 6 and run.metrics()[-1]["step"] == 6
    assert [path.name for path in run.samples.iterdir()] == ["noise.png"]
    assert len(logged) == 1 and "step 0" in logged[0]
    again = Trainer(Run.open(run.path), store)
    assert not again.finished and again.run() and len(logged) == 2


def test_the_doctor_still_examines_such_a_run(trained, unstir):
    run, _ = trained(log__every="1 step")
    spoil(run)
    status, out, err = unstir("doctor", run.path)
    assert status == 1 and "weights-finite" in out, err
