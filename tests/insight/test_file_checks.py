"""Checkpoints and disk of a run: what is damaged or missing, and what the rest of it needs."""

import dataclasses
import shutil

import pytest
import torch

from unstir.insight.doctor import diagnose, examine
from unstir.insight.gather import disk_needed, gather
from unstir.runs import build, checkpoint
from unstir.runs.run import Run

pytest_plugins = ["spoiled"]
QUICK = {"samples": False}


def test_damaged_and_missing_checkpoints(spoiled):
    (_, older), (_, newest) = checkpoint.listed(spoiled.run.checkpoints)
    whole = older.read_bytes()
    older.write_bytes(whole[:5000])
    assert spoiled.findings(**QUICK) == {"checkpoints": "warning"}
    older.write_bytes(whole)
    content = bytearray(newest.read_bytes())
    content[-100] ^= 255
    newest.write_bytes(content)
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    assert f"{newest} is damaged" in spoiled.found("checkpoints", **QUICK).evidence


def test_a_run_in_training_needs_what_it_can_go_on_from(spoiled):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps")
    report = diagnose(spoiled.path, **QUICK)
    assert report.findings == () and report.forecast["steps_left"] == 300 and report.forecast["seconds_left"] > 0
    size = checkpoint.listed(spoiled.run.checkpoints)[-1][1].stat().st_size
    slim = checkpoint.listed(spoiled.run.weights)[-1][1].stat().st_size
    assert report.forecast["disk_bytes"] == pytest.approx(
        size + slim, rel=0.05
    )  # two are kept: one more, and a picture
    for _, path in checkpoint.listed(spoiled.run.checkpoints):
        path.unlink()
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    assert "--train.init" in spoiled.found("checkpoints", **QUICK).remedy
    for _, path in checkpoint.listed(spoiled.run.weights):
        path.unlink()
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    spoiled.run.metrics_file.write_text("".join(spoiled.run.metrics_file.read_text().splitlines(keepends=True)[:14]))
    assert spoiled.findings(**QUICK) == {}  # at step 140 none is due: the first is saved at 150


@pytest.mark.parametrize(
    ("changes", "step", "full", "slim"),
    [
        # two full files are there: with keep = 5 three more are kept, and one is whole before the oldest goes
        ({"checkpoint__keep": 5}, 300, 4, 1),
        ({"checkpoint__keep": 2}, 300, 1, 1),
        ({"checkpoint__keep": 1}, 300, 1, 1),
        # snapshots are at steps 0, 6, 60 and 600; that of the step at which the run stands is drawn
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 0, 4, 3),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 5, 4, 3),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 6, 4, 2),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 599, 4, 1),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 600, 0, 0),
        ({"checkpoint__keep": 5, "train__ema_decay": 0.0}, 300, 4, 1),
        ({"checkpoint__keep": 5, "train__power_ema": True}, 300, 4, 3),  # a slim file has two averages besides
    ],
)
def test_the_disk_that_the_rest_of_a_run_needs_is_known_to_the_byte(spoiled, changes, step, full, slim):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps", **changes)
    run = Run.open(spoiled.path)
    assert len(checkpoint.listed(run.checkpoints)) == 2
    kept = gather(run.path, samples=False).files
    num = sum(p.numel() for p in build.network(run.config, torch.device("cpu")).parameters())
    tensors = 4 if run.config.train.ema_decay else 3  # weights, two moments of Adam, and their average if there is one
    tensors += 2 * run.config.train.power_ema
    assert disk_needed(run, kept, step) == 4 * num * (tensors * full + slim)


def test_the_disk_of_a_run_without_files_is_that_of_all_it_keeps(spoiled):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps", checkpoint__keep=3)
    slim = [file for file in gather(spoiled.path, samples=False).files if file.kind == "slim"]
    run, num = Run.open(spoiled.path), build.num_parameters(spoiled.run.config)
    assert disk_needed(run, (), 0) == disk_needed(run, tuple(slim), 0) == 4 * num * (4 * (3 + 1) + 1)


def test_a_finished_run_without_weights_has_a_problem(spoiled):
    for _, path in checkpoint.listed(spoiled.run.checkpoints):
        path.unlink()
    assert spoiled.findings(**QUICK) == {}  # the slim ones can be sampled from
    for _, path in checkpoint.listed(spoiled.run.weights):
        path.write_bytes(b"short")
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    assert " is damaged" in spoiled.found("checkpoints", **QUICK).evidence
    for folder in (spoiled.run.checkpoints, spoiled.run.weights):
        shutil.rmtree(folder)
    finding = spoiled.found("checkpoints", **QUICK)
    assert finding.severity == "problem"
    assert str(spoiled.run.weights) in finding.remedy
    report = diagnose(spoiled.path)
    assert not report.healthy and "brightness" in report.skipped


@pytest.mark.parametrize("moment", ["before it is read", "while it is read"])
def test_files_that_training_replaces_meanwhile_are_no_fault(spoiled, monkeypatch, moment):
    """keep=1, as it were: the full file that was listed is gone when its turn comes, and a newer one is there."""
    spoiled.config(train__length="600 steps", train__lr_period="570 steps")
    (_, older), (_, newest) = checkpoint.listed(spoiled.run.checkpoints)
    older.unlink()
    away = spoiled.path / "away"
    whole = newest.rename(away)
    newest.write_bytes(whole.read_bytes())
    changed = dataclasses.replace(checkpoint.load(newest), step=450)
    listed, load = checkpoint.listed, checkpoint.load

    def replace():
        if newest.exists():
            newest.unlink()
            checkpoint.save(spoiled.run.checkpoints, changed)

    def then_replaced(folder):
        found = listed(folder)
        if folder == spoiled.run.weights:
            replace()
        return found

    def replaced_then(path):
        if path == newest:
            replace()
        return load(path)

    if moment == "before it is read":
        monkeypatch.setattr(checkpoint, "listed", then_replaced)
    else:
        monkeypatch.setattr(checkpoint, "load", replaced_then)
    facts = gather(spoiled.path, samples=False)
    full = [file for file in facts.files if file.kind == "full"]
    assert [file.step for file in full] == [450] and facts.loaded.step == facts.step == 450
    assert all(file.problem == "" for file in facts.files) and examine(facts).findings == ()


def test_files_to_come_are_held_against_the_disk(spoiled):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps")
    facts = gather(spoiled.path, samples=False)

    def found(free):
        return {each.check: each.severity for each in examine(dataclasses.replace(facts, disk_free=free)).findings}

    assert found(facts.disk_needed) == {} and found(facts.disk_needed - 1) == {"disk": "problem"}
