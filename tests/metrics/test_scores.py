"""The likelihood of single images: against the run's own figure, against known data, and as a table."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

import unstir
from refusals import mistake, refused, refusing
from unstir.diffusion.denoiser import Prediction, at_each_time
from unstir.metrics.likelihood import split_likelihood
from unstir.runs.card import Labels
from unstir.theory.oracle import FiniteData
from unstir.theory.process import Process
from unstir.theory.schedule import cosine


def test_the_mean_is_the_runs_own_figure_and_the_parts_add_up(run, store):
    images = store.images("held_out")
    whole, own = unstir.likelihood(run.model(), images), split_likelihood(run.model(), store)
    assert whole.bits_per_dim.shape == (len(images),) and whole.error is None
    assert whole.bits_per_dim.mean().item() == pytest.approx(own.bits_per_dim, rel=1e-12)
    assert whole.prior.mean().item() == pytest.approx(own.prior, rel=1e-12)
    assert whole.diffusion.mean().item() == pytest.approx(sum(own.curve), rel=1e-9)
    assert whole.decoder.mean().item() == pytest.approx(own.decoder, rel=1e-12)
    torch.testing.assert_close(whole.prior + whole.diffusion + whole.decoder, whole.bits_per_dim)


def test_the_error_of_an_estimate_covers_how_it_varies(run, store):
    model, images = run.model(), store.images("held_out")[:60]
    whole = unstir.likelihood(model, images)
    some = [unstir.likelihood(model, images, calls=9, seed=seed) for seed in range(12)]
    spread = torch.stack([it.bits_per_dim for it in some]).std(0).mean()
    stated = torch.stack([it.error for it in some]).square().mean(0).sqrt().mean()
    assert 0.7 * spread < stated < 4 * spread
    assert abs(torch.stack([it.bits_per_dim for it in some]).mean() - whole.bits_per_dim.mean()) < 2 * stated


class Exact:
    """The exact denoiser of known data, in the place of a network."""

    def __init__(self, data, process):
        schedule, self.net = process.schedule, torch.nn.Identity()

        def denoise(x_t, t):
            x0 = data.estimate(x_t, schedule.abar(t) ** 0.5, (1 - schedule.abar(t)) ** 0.5)
            return Prediction(x0, x0)

        self.denoise = at_each_time(denoise)

    def __call__(self, x_t, t, label=None):
        return self.denoise(x_t, t)


def test_where_the_data_are_one_image_the_bound_of_any_other_is_known(run, store):
    process, images = Process(cosine(50)), store.images("train")[:8]
    model = replace(run.model(), process=process, load=lambda _: Exact(FiniteData(images[:1]), process))
    scored = unstir.likelihood(model, images, variance="small")
    snr = [math.exp(process.schedule.log_snr(t)) for t in (1, 50)]
    squares = ((images - images[:1].int()) / 127.5).double().square().flatten(1).sum(1)
    closed = (
        (snr[0] - snr[1]) / 2 * squares / (64 * math.log(2))
    )  # each term is half a difference of SNR, times squares
    torch.testing.assert_close(scored.diffusion, closed, rtol=1e-4, atol=1e-9)
    assert scored.diffusion[0] < 1e-9 and scored.bits_per_dim[1:].min() > 10 * scored.bits_per_dim[0]


def test_the_command_writes_a_row_for_each_image_of_a_folder(trained, command, tmp_path):
    run, store = trained(model__num_classes=10)
    for number, name in enumerate(("b", "a", "c")):
        folder = tmp_path / "new" / store.classes[number]
        folder.mkdir(parents=True)
        Image.fromarray(store.images("held_out")[number, 0].numpy()).save(folder / f"{name}.png")
    file = tmp_path / "tables" / "new.csv"
    status, out, _ = command("likelihood", run.path, "--images", tmp_path / "new", "--per-image", file, "--calls", 8)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert status == 0 and "3 images" in out and str(file) in out
    assert [row["image"] for row in rows] == ["0/b.png", "1/a.png", "2/c.png"]
    images, labels = store.images("held_out")[:3], torch.tensor([0, 1, 2])
    again = unstir.likelihood(run.model(), images, labels, calls=8)
    assert [float(row["bits_per_dim"]) for row in rows] == again.bits_per_dim.tolist()
    assert [float(row["error"]) for row in rows] == again.error.tolist()
    refused(command("likelihood", run.path, "--images", tmp_path / "new", "--num", 2), "--num")


def test_a_run_scores_its_own_images_and_what_misfits_is_refused(trained, command, tmp_path):
    run, store = trained(model__num_classes=10)
    status, out, _ = command("likelihood", run.path, "--per-image", tmp_path / "own.csv")
    own = split_likelihood(run.model(), store)
    assert status == 0 and f"{own.bits_per_dim:.4f} ±" in out
    assert len((tmp_path / "own.csv").read_text().splitlines()) == own.num + 1
    images = store.images("held_out")[:2]
    assert mistake(unstir.likelihood, run.model(), images.float()).key == "images"
    assert mistake(unstir.likelihood, run.model(), images).key == "label"
    hidden = replace(run.model(), labels=Labels(10, run.labels.names, True))
    with refusing("labels", [1]):
        unstir.likelihood(hidden, images, torch.zeros(1, dtype=torch.int64))
