"""Memory that really runs out: one message that says what fits, and that does fit; and how near the forecast comes."""

import re
from dataclasses import replace

import pytest
import torch

from processes import in_a_child
from unstir.chain import Chain
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import save_images
from unstir.runs import memory, resources
from unstir.train import launch
from unstir.train.launch import train_run
from unstir.train.trainer import Trainer

CPU = torch.device("cpu")
LARGE = {
    "model__channels": 16, "train__batch_size": 1000, "train__micro_batch": 0, "train__length": "2 steps",
    "train__ema_decay": 0.0, "checkpoint__every": "9 steps", "log__every": "1 step",
}  # fmt: skip
ROOM = 150_000_000


@pytest.fixture
def large(make_run, monkeypatch):
    """A run of large batches, in a process that has loaded what training needs."""
    monkeypatch.setattr(memory, "LOADED", 0)
    run, store = make_run("large", **LARGE)
    Trainer(*make_run("small", train__length="1 step")).run()
    return run, store


def test_the_forecast_of_a_larger_batch_is_near_what_is_measured(large, make_run):
    few = make_run("few", **{**LARGE, "train__batch_size": 8})

    def measured(run):
        train_run(run.config, run.path)
        return resources.peak(CPU)

    expected = [memory.forecast(*launch.needs(run.config, store)).total for run, store in (large, few)]
    found = [int(in_a_child(lambda run=run: measured(run))) for run, _ in (large, few)]
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], rel=0.25)


def test_a_training_that_runs_out_of_memory_says_what_fits_and_that_does(large):
    run, _ = large
    text = in_a_child(lambda: train_run(run.config, run.path), ROOM)
    assert re.match(
        r"OutOfMemoryError: out of memory(, at [\d.]+ GB more)?: this training takes about [\d.]+ GB \([^)]*\), and "
        r"this process can have [\d.]+ GB of cpu; what fits: --train.micro_batch \d+ \([\d.]+ GB\)",
        text,
    ), text
    less = replace(
        run.config, train=replace(run.config.train, micro_batch=int(re.search(r"micro_batch (\d+)", text)[1]))
    )
    assert in_a_child(lambda: train_run(less, run.path).finished, ROOM) == "True"
    assert [line["step"] for line in run.metrics()] == [1, 2]
    assert all(line["peak_memory_bytes"] > 1e7 for line in run.metrics())


def test_a_batch_of_samples_that_is_too_large_says_what_fits_and_leaves_no_folder(make_run, tmp_path):
    run, store = make_run("wide", model__channels=16, train__length="1 step")
    Trainer(run, store).run()
    job = Job(num=4000, chain=Chain("ddim", steps=2), batch_size=4000)
    room = 120_000_000
    text = in_a_child(lambda: save_images(run.model(device="cpu"), job, tmp_path / "made"), room)
    assert re.match(
        r"OutOfMemoryError: out of memory.*: batch_size=4000 images at once take about .* --batch-size \d+$", text
    ), text
    assert not (tmp_path / "made").exists()
    some = replace(job, batch_size=(size := int(text.split()[-1])), num=size)
    assert in_a_child(lambda: len(next(iter(sample_batches(run.model(device="cpu"), some)))[1]), room) == str(size)
