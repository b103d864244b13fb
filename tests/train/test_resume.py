"""A run that was stopped, or killed at any instant, ends as the one that was not: to the last bit."""

import itertools
import math
import os
import random
import signal
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from conftest import DISTILLED, on, pixels_in
from refusals import refusing
from tiers import SEED, proven, times
from unstir import parts
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.sections import LossConfig
from unstir.train import paths
from unstir.train.observer import Stop
from unstir.train.record import VARYING
from unstir.train.state import WINDOW
from unstir.train.trainer import Trainer

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLS = times(6, 200)


def outcome(run):
    """Every tensor of the newest checkpoint, and everything else that the clock does not touch."""
    found, _ = checkpoint.newest(run.checkpoints)
    history = {key: value for key, value in found.state.items() if key != "seconds"}
    lines = [{key: value for key, value in line.items() if key not in VARYING} for line in run.metrics()]
    pictures = pixels_in(run.samples)
    return found.step, found.tensors, history, lines, pictures


def assert_same(ours, theirs):
    assert ours[0] == theirs[0] and ours[2:] == theirs[2:]
    assert ours[1].keys() == theirs[1].keys()
    differing = [name for name in ours[1] if not torch.equal(ours[1][name], theirs[1][name])]
    assert not differing


@pytest.fixture
def uninterrupted(trained):
    run, store = trained("uninterrupted")
    assert Trainer(run, store).finished
    return outcome(run)


class StopAt(Stop):
    """Asks to stop once so many steps are taken: an Observer's view of the run, a user's Ctrl-C."""

    def __init__(self, trainer, step):
        super().__init__()
        self.trainer, self.at = trainer, step

    @property
    def signal(self):
        return signal.SIGINT if self.trainer.state.step >= self.at else None

    @signal.setter
    def signal(self, value):
        pass


def test_the_tiny_run_has_everything_a_checkpoint_must_carry(uninterrupted):
    step, tensors, history, lines, pictures = uninterrupted
    assert step == 12 and [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    kinds = {name.split(".")[0] for name in tensors}
    assert kinds == {"model", "ema", "optimizer"}
    moved = [
        name
        for name in tensors
        if name.startswith("model.") and not torch.equal(tensors[name], tensors["ema" + name[5:]])
    ]
    assert len(moved) > 50
    assert set(pictures) == {"noise.png", "start.png", "images-00000008.png", "images-00000096.png"}
    assert set(history["window"].values()) == {0.0}


@pytest.mark.parametrize("every", [1, 5])
def test_stopped_at_any_step_it_continues_bit_for_bit(make_run, uninterrupted, every):
    for at in range(every, 13, every):
        run, store = make_run("stopped")
        trainer = Trainer(run, store)
        assert not trainer.run(StopAt(trainer, at))  # at 12 too: the last picture was given up
        assert trainer.state.step == at
    Trainer(*make_run("stopped")).run()
    assert_same(outcome(run), uninterrupted)


def survives_kills(make, num, outcome_of, expected):
    """Runs of ``make(name)`` are killed at random instants, ``num`` times in all, and each goes on to the same end."""
    chance, began = random.Random(SEED), time.perf_counter()
    Trainer(*make("timed")).run()
    duration, kills, runs = time.perf_counter() - began, 0, itertools.count()
    while kills < num:
        name = f"killed-{next(runs)}"  # a finished run would have no time to be killed
        for life in itertools.count():
            if not (child := os.fork()):
                status = 1
                try:
                    run, store = make(name)
                    with run.lock():
                        run.tidy()
                        status = not Trainer(run, store).run()
                finally:
                    os._exit(status)
            lives = duration * (1 + life / 10)  # they grow, or a child that is slower than this process never finishes
            time.sleep(chance.uniform(0, lives))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            kills += 1
        run, store = make(name)
        assert Trainer(run, store).finished
        assert_same(outcome_of(run), expected)
        assert not list(run.path.rglob(".*"))
    proven("SIGKILL while training", kills)


def test_killed_at_random_instants_it_continues_bit_for_bit(make_run, uninterrupted):
    survives_kills(make_run, KILLS, outcome, uninterrupted)


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_word(make_run, uninterrupted, logged):
    run, store = make_run("damaged")
    trainer = Trainer(run, store)
    trainer.run(StopAt(trainer, 9))
    newest = checkpoint.listed(run.checkpoints)[-1][1]
    newest.write_bytes(newest.read_bytes()[:-100])
    trainer = Trainer(*make_run("damaged"))
    assert newest.exists() and logged == []  # nothing is written before it starts
    trainer.start()
    assert trainer.state.step == 8
    assert len(logged) == 1 and newest.name in logged[0] and "damaged" in logged[0]
    assert not newest.exists() and newest.with_name(newest.name + ".damaged").exists()
    trainer.run()
    assert_same(outcome(run), uninterrupted)


def test_a_run_whose_checkpoints_are_gone_starts_over_with_a_word(make_run, uninterrupted, logged):
    run, store = make_run("gone")
    trainer = Trainer(run, store)
    trainer.run(StopAt(trainer, 9))
    for _, path in checkpoint.listed(run.checkpoints):
        path.unlink()
    trainer = Trainer(*make_run("gone"))
    trainer.run()
    (over,) = (text for text in logged if "drops" in text)
    assert "8 steps" in over
    assert_same(outcome(run), uninterrupted)


VARIANTS = {
    "epochs of two steps, cosine by epoch, classes": {
        "train__batch_size": 7, "train__micro_batch": 0, "train__lr_schedule": "cosine", "train__lr_every": "epoch",
        "train__length": "7 steps", "model__num_classes": 10, "data__flip": False, "train__condition_dropout": 0.2,
        "loss__weighting": "p2", "loss__weighting_options": {"gamma": 0.5, "k": 2.0},
    },
    "bfloat16, raw weights beside power averages, AdamW": {
        "train__dtype": "bfloat16", "train__ema_decay": 0.0, "train__power_ema": True, "train__optimizer": "adamw",
        "train__weight_decay": 0.1, "loss__weighting": "min_snr", "loss__weighting_options": {"gamma": 2.0},
    },
    "Muon, times by their log-SNR, perturbed inputs, nearest noises, augmentation, a linear fall": {
        "train__optimizer": "muon", "train__augment": 0.5, "train__weight_decay": 0.1, "train__lr_schedule": "wsd",
        "train__lr_period": "4 steps", "loss__times": "laplace", "loss__times_options": {"scale": 0.5, "mean": 1.0},
        "loss__input_perturbation": 0.1, "loss__noise_choices": 4,
    },
    "paths, whose teacher goes with it": {**DISTILLED, "loss__teacher": "eps"},
    "a learned variance, times drawn by their losses": {  # each of 4 is seen ten times within the first half of the run
        "diffusion__T": 4, "diffusion__learned_variance": True, "loss__objective": "hybrid",
        "loss__times": "importance", "loss__vlb_weight": 0.01,
    },
    "a custom loss": {"loss__objective": "loss:huber", "loss__objective_options": {"delta": 0.1}},
}  # fmt: skip


def test_each_setting_of_the_loss_is_among_those_that_are_continued():
    assert {f"loss__{field.name}" for field in fields(LossConfig)} <= {
        key for each in VARIANTS.values() for key in each
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_settings_continue_bit_for_bit_too(make_run, few, monkeypatch, variant):
    monkeypatch.setattr(paths, "STEPS", (2, 4))  # of a teacher's paths
    monkeypatch.syspath_prepend(EXAMPLES)
    parts.allow("loss:huber")
    changes = VARIANTS[variant]
    if "epochs" in variant:
        changes = {**changes, **on(few(15))}
    Trainer(*make_run("whole", **changes)).run()
    for at in (1, 3, 4, 6):
        trainer = Trainer(*make_run("parts", **changes))
        trainer.run(StopAt(trainer, at))
    run, store = make_run("parts", **changes)
    assert Trainer(run, store).run()
    assert_same(outcome(run), outcome(Run.open(run.path.parent / "whole")))


def test_activation_checkpointing_may_change_and_changes_no_bit(make_run, uninterrupted):
    for levels, at in ((2, 5), (0, 7), (1, 12)):
        run, store = make_run("recomputed", train__activation_checkpointing=levels)
        trainer = Trainer(run, store)
        net = trainer.state.net
        assert [level.checkpointed for level in net.down] == [levels > 0, levels > 1]
        trainer.run(StopAt(trainer, at))
    Trainer(*make_run("recomputed", train__activation_checkpointing=1)).run()
    assert_same(outcome(run), uninterrupted)


def test_only_whole_checkpoints_count_among_the_kept(make_run):
    run, store = make_run("damaged", checkpoint__keep=1, checkpoint__every="2 steps", train__length="12 steps")
    trainer = Trainer(run, store)
    trainer.run(StopAt(trainer, 5))
    run.path.joinpath("checkpoints", "step-00000099.safetensors").write_bytes(b"junk")
    trainer = Trainer(*make_run("damaged", checkpoint__keep=1, checkpoint__every="2 steps", train__length="12 steps"))
    assert trainer.state.step == 5
    trainer.run(StopAt(trainer, 7))
    assert checkpoint.newest(run.checkpoints)[0].step == 7


def test_a_checkpoint_of_another_run_is_left_alone(make_run, tmp_path, logged):
    for name, rate in (("ours", 1e-4), ("theirs", 1e-3)):
        Trainer(*make_run(name, train__lr=rate, train__length="2 steps")).run()
    theirs = checkpoint.load(tmp_path / "theirs/checkpoints/step-00000002.safetensors")
    other = checkpoint.save(tmp_path / "ours/checkpoints", replace(theirs, step=3))
    run, store = make_run("ours", train__lr=1e-4, train__length="2 steps")
    assert Run.open(run.path).config.train.lr == 1e-4  # its own, though another run's file is the newest
    assert Trainer(run, store).run() and run.load().step == 2
    assert f"{other} is not of this run" in " ".join(logged) and checkpoint.load(other).data == theirs.data


def test_a_run_folder_removed_while_it_trains_ends_the_training(make_run, tmp_path, monkeypatch):
    run, store = make_run("gone", train__length="4 steps", checkpoint__every="1 step")
    trainer = Trainer(run, store)
    monkeypatch.setattr(trainer, "_take_snapshot", lambda _: run.path.exists() and run.path.rename(tmp_path / "moved"))
    with refusing("", run.path):
        trainer.run()
    assert not run.path.exists()


def test_metrics_are_synced_before_the_checkpoint_that_counts_on_them(make_run, monkeypatch):
    from unstir.runs import lines

    calls = []
    fsync, save = os.fsync, checkpoint.save
    monkeypatch.setattr(lines.os, "fsync", lambda fd: calls.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    monkeypatch.setattr(checkpoint, "save", lambda folder, made: calls.append(str(folder)) or save(folder, made))
    run, store = make_run("synced", train__length="1 step", grids__log_spaced=0)
    Trainer(run, store).run()
    full = calls.index(str(run.checkpoints))
    assert str(run.log_file("metrics")) in calls[:full]


def test_longer_is_a_change_that_continues_the_same_run(make_run):
    Trainer(*make_run("whole", train__length="16 steps", grids__epochs=[0])).run()
    Trainer(*make_run("extended", train__length="7 steps", grids__epochs=[0])).run()
    run, store = make_run("extended", train__length="16 steps", grids__epochs=[0])
    assert Trainer(run, store).run()
    whole, extended = (outcome(Run.open(run.path.parent / name)) for name in ("whole", "extended"))
    assert all(torch.equal(whole[1][name], extended[1][name]) for name in whole[1])
    assert [line["train.length"] for line in run.log("events").lines if line["event"] == "changed"] == ["16 steps"]


def test_an_infinite_loss_since_the_last_log_line_is_no_damage(make_run):
    """Of an error beyond 1e19 the square overflows while the gradient is finite, so that the step counts."""
    run, store = make_run("infinite")
    trainer = Trainer(run, store)
    trainer.take_step()
    trainer.state.window[WINDOW.index("mse")] = math.inf
    trainer._saving.begin()
    trainer._saving.wait()
    again = Trainer(run, store).state
    assert again.step == 1 and torch.equal(again.window, trainer.state.window)
