"""A run trained by several processes: the steps of one, but for rounding; and nothing is lost when one of them ends."""

import os
import random
import signal
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from test_resume import assert_same, outcome
from torch import nn

import unstir
from conftest import DISTILLED, forget_parts, tiny_config
from processes import until
from refusals import refusing
from tiers import SEED, proven, times
from together import Together, together
from unstir.errors import UserError
from unstir.group import LostError
from unstir.jobs.process import LOST, Signals, place
from unstir.nn.config import ModelConfig
from unstir.runs import build, checkpoint
from unstir.runs.run import Run
from unstir.train import launch, paths, trainer
from unstir.train.launch import train_run
from unstir.train.trainer import Trainer

KILLS = times(2, 100)
LIMIT = 30.0  # seconds until all have ended

VARIANTS = {
    "flip, dropout, hidden labels, augmentation, nearest of three noises, perturbed inputs": {
        "train__batch_size": 13, "train__micro_batch": 3, "model__num_classes": 10, "train__condition_dropout": 0.3,
        "train__augment": 0.5, "loss__noise_choices": 3, "loss__input_perturbation": 0.1,
    },
    "a learned variance, times by their losses, no micro-batches": {
        "train__batch_size": 13, "train__micro_batch": 0, "diffusion__T": 4, "diffusion__learned_variance": True,
        "loss__objective": "hybrid", "loss__times": "importance", "train__activation_checkpointing": 1,
    },
    "an image that describes another, flipped and augmented with it, or hidden": {
        "train__batch_size": 7, "train__micro_batch": 2, "data__condition": "masked", "data__flip": True,
        "train__augment": 0.5, "train__condition_dropout": 0.3,
    },
    "paths of a teacher": {"train__batch_size": 7, **DISTILLED},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_float64_gradients_are_those_of_one_process(make_run, tmp_path, monkeypatch, variant):
    monkeypatch.setattr(paths, "STEPS", (2, 4))  # of a teacher's paths
    network = build.network
    monkeypatch.setattr(build, "network", lambda *given: network(*given).double())
    run, store = make_run(**VARIANTS[variant], train__clip=0.0)

    def step(rank=0):
        with unstir.torchrun_group("cpu") as group:
            made = Trainer(run, store, group=group)
            made.take_step()
            gradient = torch.cat([p.grad.flatten() for p in made.state.net.parameters()])
            made.take_step()
            history = [] if made.state.history is None else made.state.history.losses.flatten().tolist()
            return gradient.tolist(), [*made.state.window.tolist(), *made.state.counters.tolist(), *history]

    gradient, figures = step()
    gradient = torch.tensor(gradient, dtype=torch.float64)
    assert len(gradient) > 1000 and gradient.abs().max() > 0
    for num in (2, 3, 4):
        found = together(num, step, tmp_path / str(num))
        assert all(each == found[0] for each in found)
        ours = torch.tensor(found[0][0], dtype=torch.float64)
        assert (ours - gradient).norm() / gradient.norm() < 1e-12
        assert found[0][1] == pytest.approx(figures, rel=1e-5)


def shared(config, out, timeout=timedelta(minutes=1), **how):
    with unstir.torchrun_group("cpu", timeout) as group:
        return train_run(config, out, group=group, **how)


def training(config, out, ask=(None, None), after=lambda rank, step: None, timeout=timedelta(minutes=1)):
    """What each process does; number ask[0] is asked to stop after step ask[1]."""

    def work(rank):
        stop, take_step = Signals(), Trainer.take_step

        def counted(self):
            take_step(self)
            if self._config.batch_size != config.train.batch_size:  # a trial
                return
            after(rank, self.state.step)
            if ask == (rank, self.state.step):
                stop.request(signal.SIGTERM)

        Trainer.take_step = counted
        try:
            done = shared(config, out, stop=stop, timeout=timeout)
        except LostError:
            os._exit(LOST)
        return done.step, done.finished, stop.signal

    return work


@pytest.fixture
def tiny(digits):
    return lambda **changes: tiny_config(digits, train__batch_size=7, train__micro_batch=2, **changes)


def test_a_run_of_three_continues_bit_for_bit_though_one_was_asked_to_stop(tiny, tmp_path):
    config = tiny(train__length="8 steps")
    assert together(3, training(config, tmp_path / "whole"), tmp_path / "0") == [[8, True, None]] * 3
    stopped = together(3, training(config, tmp_path / "parts", (2, 3)), tmp_path / "1")
    step, *rest = stopped[0]
    assert stopped == [stopped[0]] * 3 and rest == [False, 15] and 3 <= step <= 5
    assert checkpoint.listed(tmp_path / "parts/checkpoints")[-1][0] == step
    together(3, training(config, tmp_path / "parts"), tmp_path / "last")
    assert_same(outcome(Run.open(tmp_path / "parts")), outcome(Run.open(tmp_path / "whole")))
    events = Run.open(tmp_path / "parts").log("events").lines
    assert [line["event"] for line in events] == ["started", "stopped", "continued", "finished"]
    assert {line["processes"] for line in events if "processes" in line} == {3}


def test_the_pass_that_does_not_count_leaves_the_buffers(tiny, tmp_path, monkeypatch):
    forget_parts(monkeypatch)

    @unstir.network
    class Passing(nn.Module):
        def __init__(self, in_channels, out_channels, num_labels):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
            self.register_buffer("passes", torch.zeros(1))

        def forward(self, x, t, label=None):
            self.passes.add_(self.training)
            return self.conv(x)

    network = ModelConfig(type=f"{__name__}:Passing", in_channels=1)
    config = replace(tiny(train__length="2 steps"), model=network)
    together(2, training(config, tmp_path / "run"), tmp_path / "2")
    saved = checkpoint.load(tmp_path / "run/checkpoints" / checkpoint.file_name(2)).tensors
    assert saved["model.passes"].item() == 2 * 2  # of four slots, two at once


def test_losses_follow_those_of_one_process_and_the_number_may_change(tiny, tmp_path, logged):
    config = tiny(log__every="1 step", train__length="9 steps")
    train_run(config, tmp_path / "one")
    together(2, training(config, tmp_path / "changing", (0, 3)), tmp_path / "2")
    together(3, training(config, tmp_path / "changing", (1, 5)), tmp_path / "3")
    train_run(config, tmp_path / "changing")
    assert any("processes=3" in text for text in logged), logged
    one, changing = (Run.open(tmp_path / name).metrics() for name in ("one", "changing"))
    assert [line["step"] for line in changing] == list(range(1, 10))
    for name in ("loss", "grad_norm", "lr", "clipped", "skipped"):
        assert [line[name] for line in changing] == pytest.approx([line[name] for line in one], rel=1e-5, abs=1e-9)
    tensors = [outcome(Run.open(tmp_path / name))[1] for name in ("one", "changing")]
    assert all(torch.allclose(t, tensors[1][name], atol=1e-5) for name, t in tensors[0].items())


def test_one_killed_at_any_instant_ends_all_and_the_run_continues_bit_for_bit(tiny, tmp_path):
    chance, slowest, kills, lives = random.Random(SEED), 0.0, 0, 0
    began = time.monotonic()
    together(2, training(tiny(), tmp_path / "whole"), tmp_path / "w")
    duration = time.monotonic() - began
    while kills < KILLS:
        out = tmp_path / f"killed-{kills}"
        for life in range(1000):
            job, lives = Together(2, training(tiny(), out), tmp_path / f"life-{lives}"), lives + 1
            until = time.monotonic() + chance.uniform(0, duration * (1 + life / 10))
            while time.monotonic() < until and not job.poll():
                time.sleep(0.005)
            if job.poll():
                break
            job.signal(chance.randrange(2), signal.SIGKILL)
            killed, kills = time.monotonic(), kills + 1
            assert sorted(map(bool, job.wait(LIMIT))) == [True, True] or 0 in job.statuses, job.said()
            slowest = max(slowest, *(ended - killed for ended in job.ended.values()))
        assert job.statuses == [0, 0], job.said()
        assert_same(outcome(Run.open(out)), outcome(Run.open(tmp_path / "whole")))
    assert slowest < LIMIT
    proven(f"SIGKILL of one of 2 processes (the others ended within {slowest:.1f} s)", kills)


def test_a_gradient_that_is_not_finite_in_one_process_is_skipped_by_all(make_run, tmp_path, monkeypatch):
    run, store = make_run(train__length="14 steps", log__every="14 steps", checkpoint__every="14 steps")
    loss = trainer.denoising_loss

    def spoilt(*given):
        losses = loss(*given)
        return losses._replace(total=losses.total * torch.nan) if place().rank == 1 and spoilt.at else losses

    def slowly(*given):
        time.sleep(1.0)  # longer than the others would wait for one that has failed
        return save(*given)

    save, spoilt.at = checkpoint.save, False
    monkeypatch.setattr(trainer, "denoising_loss", spoilt)
    monkeypatch.setattr(trainer.checkpoint, "save", slowly)

    def work(rank):
        seen = []
        try:
            with unstir.torchrun_group("cpu") as group:
                made = Trainer(run, store, group=group)
                made.take_step()
                before = [p.clone() for p in made.state.net.parameters()]
                spoilt.at = True
                made.take_step()
                seen += [all(map(torch.equal, before, made.state.net.parameters())), made.state.counters.tolist()]
                made.run()
        except UserError as error:
            return *seen, str(error), [step for step, _ in checkpoint.listed(run.checkpoints)]

    (alike, counted, error, saved), second = together(2, work, tmp_path / "out")
    assert alike and counted == [1, 1] and second[:3] == [alike, counted, error]
    assert "step 14" in error and 14 in saved


def test_on_the_command_line_the_first_alone_speaks_and_sigterm_to_another_stops_all(tiny, tmp_path):
    from unstir import cli
    from unstir.runs.toml import to_toml

    (tmp_path / "tiny.toml").write_text(to_toml(tiny(train__length="100000 steps")))
    words = ["train", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]
    job = Together(2, lambda rank: cli.main(words), tmp_path / "out")
    until(lambda: checkpoint.listed(tmp_path / "run/checkpoints") or job.poll())
    job.signal(1, signal.SIGTERM)
    job.signal(1, signal.SIGTERM)  # torchrun says it again
    assert job.wait(LIMIT) == [128 + signal.SIGTERM, 0]
    first, second = ((tmp_path / f"out/{rank}.err").read_text() for rank in (0, 1))
    step = checkpoint.listed(tmp_path / "run/checkpoints")[-1][0]
    assert second == "" and first.count(f"step {step} of 100000") == 1 and "2 processes" in first


def _refuse(text):
    raise UserError(text)


STORE = SimpleNamespace(content_hash="other", path="there")
OTHERWISE = {
    "settings": lambda config: replace(config, train=replace(config.train, lr=0.5)),
    "version": lambda config: setattr(unstir, "__version__", "0.0.1") or config,
    "data": lambda config: setattr(launch, "with_store", lambda run: (run, STORE)) or config,
    "no_data": lambda config: setattr(launch, "with_store", lambda run: _refuse("no data there")) or config,
}
"""What process 1 has otherwise than the first."""


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("settings", "process 1 of 2 (counted from 0) differs from the first: train.lr is 0.5, not 0.0002; start all"),
        ("version", "process 1 of 2 (counted from 0) differs from the first: unstir is '0.0.1', not "),
        ("data", "process 1 of 2 (counted from 0): there is not the data of"),
        ("no_data", "process 1 of 2 (counted from 0): no data there; all"),
    ],
)
def test_processes_that_disagree_are_refused_before_the_first_step(tiny, tmp_path, what, words):
    def work(rank):
        config = OTHERWISE[what](tiny()) if rank == 1 else tiny()
        try:
            shared(config, tmp_path / "run")
        except (UserError, LostError) as error:
            return str(error)

    said = together(2, work, tmp_path / "out")
    assert words in said[1], said
    assert not (tmp_path / "run/checkpoints").exists()
    if what in ("settings", "version"):
        assert said[0] == said[1] and not (tmp_path / "run").exists()


def test_fewer_images_than_processes_are_refused(digits, tmp_path):
    def work(rank):
        with refusing("train.batch_size"):
            shared(tiny_config(digits, train__batch_size=2, train__micro_batch=0), tmp_path / "run")

    together(3, work, tmp_path / "out")


def test_initial_weights_and_checkpoints_are_read_by_the_first_alone(tiny, tmp_path, monkeypatch):
    train_run(tiny(train__length="1 step"), tmp_path / "before")
    config = tiny(train__init=str(tmp_path / "before"), train__length="6 steps")
    read = checkpoint.load

    def once(path):
        assert place().rank == 0
        return read(path)

    monkeypatch.setattr(checkpoint, "load", once)
    assert together(2, training(config, tmp_path / "run", (1, 3)), tmp_path / "a")[0][1:] == [False, 15]
    assert together(2, training(config, tmp_path / "run"), tmp_path / "b") == [[6, True, None]] * 2


def test_one_out_of_memory_ends_the_job_with_its_line_and_the_last_checkpoint_is_whole(tiny, tmp_path, monkeypatch):
    from unstir import cli
    from unstir.runs.toml import to_toml

    loss = trainer.denoising_loss

    def greedy(denoiser, x_0, t, eps, label, key, *given):
        if place().rank == 1 and key.step + 1 >= 10:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 3.00 GiB")
        return loss(denoiser, x_0, t, eps, label, key, *given)

    monkeypatch.setattr(trainer, "denoising_loss", greedy)
    (tmp_path / "tiny.toml").write_text(to_toml(tiny()))
    words = ["train", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]
    job = Together(2, lambda rank: cli.main(words), tmp_path / "out")
    assert job.wait(LIMIT) == [LOST, 2]
    (line,) = [line for line in job.said().splitlines() if line.startswith("unstir: ")]
    assert "process 1 of 2" in line and "--train.micro_batch" in line
    found, damaged = checkpoint.newest(tmp_path / "run/checkpoints")
    assert found.step == 8 and not damaged and "Traceback" not in job.said()
