"""The way from noise to the images of a job, as frames, animations and strips: the very images that it writes."""

import itertools

import pytest
import torch
from PIL import Image

from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.draw import starting_noise
from unstir.generate.drawing import Job
from unstir.generate.folder import read_images, save_images
from unstir.generate.sampling import trajectory
from unstir.pictures.animation import save_animation, strip
from unstir.pictures.charts import evenly
from unstir.pictures.grid import grid
from unstir.pixels import to_uint8

CLASSES = {"model__num_classes": 10, "train__condition_dropout": 0.5}


def noise_of(run, seed, num):
    """What images 0..num-1 of a seed begin as, in pixels."""
    return to_uint8(starting_noise(seed, torch.arange(num), run.data.shape))


@pytest.fixture
def batches(monkeypatch):
    """A list that grows by the size of each batch that a denoiser is asked about."""
    asked, call = [], Denoiser.__call__

    def counted(self, x_t, t, *rest):
        asked.append(len(x_t))
        return call(self, x_t, t, *rest)

    monkeypatch.setattr(Denoiser, "__call__", counted)
    return asked


def test_the_noise_beside_the_images_is_that_of_their_seed(trained, command, tmp_path):
    run, _ = trained(train__length="1 step", grids__nrow=5)
    for seed, num in ((0, 3), (1, 3), (7, 70)):
        out, shown = tmp_path / f"seed{seed}", min(num, 64)
        options = ("--seed", seed, "--num", num, "--sampler", "ddim", "--steps", 1, "--out", out)
        assert command("sample", run.path, *options)[0] == 0
        for name, images in (("noise", noise_of(run, seed, shown)), ("grid", read_images(out, shown))):
            with Image.open(out / f"{name}.png") as picture:
                assert picture.tobytes() == grid(images, nrow=5).tobytes()
    assert not torch.equal(noise_of(run, 0, 3), noise_of(run, 1, 3))


@pytest.mark.parametrize("batch_size", [4, 64])
def test_the_way_leads_from_the_noise_to_the_images_that_the_job_writes(trained, tmp_path, batches, counts, batch_size):
    run, _ = trained(train__length="1 step")
    job = Job(num=10, chain=Chain("ddim", steps=10, seed=3, clip=False), batch_size=batch_size)
    batches.clear()
    model = run.model()
    save_images(model, job, tmp_path / "made")
    written = batches.copy()
    every = trajectory(model, job, 10)
    for shown, limit in itertools.product((2, 4, 64), (2, 3, 60)):
        batches.clear()
        counts.clear()
        count = min(shown, 10)
        frames = trajectory(model, job, shown, limit=limit)
        seen = [every[i] for i in evenly(11, limit)]
        assert all(torch.equal(frame.x0, whole.x0[:count]) for frame, whole in zip(frames, seen, strict=True))
        assert torch.equal(frames[0].x, noise_of(run, 3, count))
        assert torch.equal(frames[-1].x, read_images(tmp_path / "made", count))
        assert [frame.t for frame in frames] == [range(20, -1, -2)[i] for i in evenly(11, limit)]
        assert {len(images) for frame in frames for images in (frame.x, frame.x0)} == {count}
        made = 10 * -(-count // batch_size)  # ten calls a batch, and no batch without an image that is shown
        assert batches == written[:made] and counts == [
            ("drawing trajectories", done, made) for done in range(1, made + 1)
        ]


@pytest.mark.parametrize(
    ("which", "options"),
    [({}, {"label": 3}), ({}, {"shares": (1, 0, 0, 5, 0, 0, 0, 0, 0, 1)}), ({"ema": False}, {}), ({"guide": "1"}, {})],
)
def test_the_way_is_labelled_guided_and_averaged_as_the_job_is(trained, tmp_path, which, options):
    run, _ = trained(**CLASSES)
    chain = Chain(steps=5, seed=2, guidance=30.0)
    job = Job(num=6, chain=chain, batch_size=4, **options)
    model = run.model(**which)
    save_images(model, job, tmp_path / "made")
    made = read_images(tmp_path / "made", 6)
    assert torch.equal(trajectory(model, job, 6)[-1].x, made)
    usual = Job(num=6, chain=chain, batch_size=4)
    assert not torch.equal(trajectory(run.model(), usual, 6)[-1].x, made)


def test_the_files_that_show_the_way_are_those_of_the_jobs_frames(trained, command, tmp_path):
    run, _ = trained(train__length="1 step", grids__nrow=3)
    files = tmp_path / "a.webp", tmp_path / "s.png"
    options = ("--num", 10, "--batch-size", 4, "--seed", 5, "--steps", 20, "--stages", 3)
    shown = ("--animate", files[0], "--strip", files[1], "--out", tmp_path / "made")
    command.done("sample", run.path, *options, *shown)
    job = Job(num=10, chain=Chain(steps=20, seed=5), batch_size=4)
    save_animation(trajectory(run.model(), job, 10), tmp_path / "own.webp", nrow=3)
    assert files[0].read_bytes() == (tmp_path / "own.webp").read_bytes()
    first = trajectory(run.model(), job, 8)
    assert torch.equal(first[-1].x, read_images(tmp_path / "made", 8))
    with Image.open(files[1]) as picture:
        assert picture.tobytes() == strip(first, 3).tobytes()
