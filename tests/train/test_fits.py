"""The trial before a run's first step: what does not fit is halved, under a real limit, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from test_parallel import training
from test_resume import assert_same, outcome

from conftest import tiny_config, without_charts
from processes import in_a_child
from together import together
from unstir.errors import OutOfMemoryError
from unstir.runs.run import Run
from unstir.train import fits, paths, trainer
from unstir.train.launch import open_run, train_run
from unstir.train.trainer import Trainer

LARGE = {
    "model__channels": 16, "train__batch_size": 1000, "train__micro_batch": 0, "train__length": "1 step",
    "train__ema_decay": 0.0, "checkpoint__every": "9 steps", "log__every": "1 step",
}  # fmt: skip
ROOM = 450_000_000
DISTILLED = {"diffusion__predict": "v", "loss__objective": "consistency", "grids__sampler": "consistency"}
VARIANTS = {
    "as it is": {},
    "recomputed": {"train__activation_checkpointing": 1},
    "in bfloat16, with Muon": {"train__dtype": "bfloat16", "train__optimizer": "muon", "train__power_ema": True},
    "times by losses": {"loss__times": "importance"},
}


@pytest.fixture
def large(make_run):
    """large(micro_batch) -> a run of a large batch, in a process that has loaded what training needs."""
    Trainer(*make_run("small", train__length="1 step")).run()
    return lambda size: make_run(f"large-{size}", **{**LARGE, "train__micro_batch": size})


def test_what_does_not_fit_is_halved_once_and_kept_in_the_settings(large):
    run, store = large(0)
    text = in_a_child(lambda: train_run(run.config, run.path).finished, ROOM)
    assert text == "True"
    size = Run.open(run.path).config.train.micro_batch
    assert size in (500, 250)
    given, _ = large(size)
    Trainer(given, store).run()
    assert_same((*outcome(run)[:2], *[()] * 3), (*outcome(given)[:2], *[()] * 3))
    assert open_run(run.config, run.path, store).config.train.micro_batch == size  # whatever memory there is
    other = replace(run.config, train=replace(run.config.train, micro_batch=2 * size))
    assert open_run(other, run.path, store).config.train.micro_batch == 2 * size


def or_lowers(work):
    """What ``work`` returns, or the settings to lower where the memory is used up."""
    try:
        return work()
    except OutOfMemoryError as error:
        return error.lower


def test_a_size_that_was_given_is_tried_as_it_is(large):
    run, _ = large(900)
    text = in_a_child(lambda: or_lowers(lambda: train_run(run.config, run.path).finished), ROOM)
    assert text.startswith("('train.micro_batch',")
    assert Run.open(run.path).config.train.micro_batch == 900 and not run.checkpoints.exists()
    fewer = replace(run.config, train=replace(run.config.train, micro_batch=20))
    assert in_a_child(lambda: train_run(fewer, run.path).finished, ROOM) == "True"


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_and_three_images_tell_the_bytes_of_more(variant, make_run):
    run, store = make_run(**VARIANTS[variant])
    two, three, many = (fits._counted(run, store, num) for num in (2, 3, 40))
    extended = max(a + 38 * (b - a) for a, b in zip(two, three, strict=True))
    assert extended == pytest.approx(max(many), rel=0.02) and max(many) > 1.5 * max(three)


@pytest.mark.parametrize("changes", [{}, DISTILLED], ids=["trained", "distilled"])
def test_the_trial_changes_nothing(changes, make_run, monkeypatch, logged):
    monkeypatch.setattr(paths, "STEPS", (2, 4))  # of a teacher's paths
    changes = {**changes, "train__micro_batch": 0, "train__length": "4 steps"}
    plain, store = make_run("plain", **changes)
    Trainer(plain, store).run()
    run, _ = make_run(**changes)
    text, state = (run.path / "config.toml").read_text(), torch.random.get_rng_state()
    tried, real = [], fits._counted
    monkeypatch.setattr(fits, "_counted", lambda *given: tried.append(given[2]) or real(*given))
    for _ in range(2):  # the second time it is continued
        assert train_run(run.config, run.path).finished
    assert tried == [2, 3] and torch.equal(torch.random.get_rng_state(), state)
    assert_same(outcome(run), outcome(plain))
    assert (run.path / "config.toml").read_text() == text
    assert not any("memory" in text for text in logged)


@pytest.mark.parametrize(("most", "expected"), [(8, 0), (3, 2), (0, None)])
def test_where_an_error_says_so_it_is_caught(most, expected, make_run, monkeypatch, logged):
    monkeypatch.setattr(fits, "_extended", lambda run, store, size, _: fits._taken(run, store, size))  # as on a GPU
    run, store = make_run(train__micro_batch=0)
    real = trainer.denoising_loss

    def greedy(denoiser, x_0, *given):
        if len(x_0) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return real(denoiser, x_0, *given)

    monkeypatch.setattr(trainer, "denoising_loss", greedy)
    if expected is None:
        with pytest.raises(OutOfMemoryError, match="model.channels"):
            fits.fitting(run, store)
        return
    assert fits.fitting(run, store).config.train.micro_batch == expected
    assert Run.open(run.path).config.train.micro_batch == expected
    assert len(logged) == bool(expected)


def test_of_several_processes_the_smallest_answer_holds(digits, tmp_path, monkeypatch):
    without_charts(monkeypatch)

    def work(rank):
        fits._extended = lambda run, store, size, _: lambda tried: tried <= (4, 2)[rank]
        return training(tiny_config(digits, train__batch_size=7, train__micro_batch=0), tmp_path / "run")(rank)

    assert together(2, work, tmp_path / "job")[0][:2] == [12, True]
    assert Run.open(tmp_path / "run").config.train.micro_batch == 2
