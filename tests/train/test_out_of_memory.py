"""Memory that really runs out: training halves its micro-batch, else one message says what fits; and the forecast."""

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
from unstir.train.observer import Observer
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


def test_the_forecast_of_a_compiled_training_counts_its_compiler(make_run, monkeypatch):
    monkeypatch.setattr(resources, "taken", lambda device: 1000)
    run, store = make_run("run")
    rest = {how: launch.needs(with_compile(run.config, how), store)[3] for how in ("no", "yes", "graphs")}
    assert rest["yes"] - rest["no"] == rest["graphs"] - rest["no"] == launch.COMPILER


def with_compile(config, how):
    return replace(config, train=replace(config.train, compile=how))


def test_a_training_that_runs_out_of_memory_goes_on_with_smaller_micro_batches(large):
    run, _ = large
    said = []

    class Heard(Observer):
        def say(self, text):
            said.append(text)

    one = replace(run.config, train=replace(run.config.train, length="1 step"))  # of parts that may be single images

    def trained():
        return train_run(one, run.path, observer=Heard()).finished, said

    text = in_a_child(trained, ROOM)
    halved = [event for event in run.log("events").lines if event["event"] == "halved"]
    assert halved and halved[0]["step"] == 1 and 1 <= halved[-1]["micro_batch"] <= 500
    assert text.startswith("(True, [") and text.count("out of memory at step") == len(halved), text
    assert f"from there on train.micro_batch is {halved[0]['micro_batch']} in place of 1000" in text
    assert [line["step"] for line in run.metrics()] == [1]
    assert all(line["peak_memory_bytes"] > 1e7 for line in run.metrics())


def test_a_grid_that_runs_out_of_memory_says_how_many_images_fit_and_they_do(make_run, monkeypatch):
    settings = {"model__channels": 16, "train__length": "1 step", "grids__num": 4000, "grids__log_spaced": 0}
    run, _ = make_run("many", **settings)
    Trainer(*make_run("small", train__length="1 step")).run()  # which loads what training needs
    monkeypatch.setattr(launch, "check", lambda *_: None)

    def trained(config):
        return train_run(config, run.path).finished

    text = in_a_child(lambda: trained(run.config), ROOM)
    assert re.match(
        "OutOfMemoryError: out of memory.*, for the grid of step 0, whose 4000 images are drawn at once, and this "
        r"process can have .*; nothing was trained yet; to go on: unstir train --out .* --grids.num \d+; or ",
        text,
    ), text
    num = int(re.search(r"--grids.num (\d+)", text)[1])
    fewer = replace(run.config, grids=replace(run.config.grids, num=num))
    assert num > 100 and in_a_child(lambda: trained(fewer), ROOM) == "True"


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_batch_of_samples_that_is_too_large_says_what_fits_and_leaves_no_folder(guidance, make_run, tmp_path):
    labels = {"model__num_classes": 10, "train__label_dropout": 0.1}
    run, store = make_run("wide", model__channels=16, train__length="1 step", **labels)
    Trainer(run, store).run()
    job = Job(num=4000, chain=Chain("ddim", steps=2, guidance=guidance), batch_size=4000)
    room = 120_000_000
    text = in_a_child(lambda: save_images(run.model(device="cpu"), job, tmp_path / "made"), room)
    assert re.match(
        r"OutOfMemoryError: out of memory.*: batch_size=4000 images at once take about .* --batch-size \d+$", text
    ), text
    assert not (tmp_path / "made").exists()
    some = replace(job, batch_size=(size := int(text.split()[-1])), num=size)
    assert in_a_child(lambda: len(next(iter(sample_batches(run.model(device="cpu"), some)))[1]), room) == str(size)
