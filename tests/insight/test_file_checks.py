"""Checkpoints of a run: what is damaged or missing."""

import dataclasses
import shutil

import pytest

from unstir.insight.doctor import diagnose, examine
from unstir.insight.gather import gather
from unstir.runs import checkpoint

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
    for _, path in checkpoint.listed(spoiled.run.checkpoints):
        path.unlink()
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    assert "train.init=" in spoiled.found("checkpoints", **QUICK).remedy
    for _, path in checkpoint.listed(spoiled.run.weights):
        path.unlink()
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    spoiled.run.log_file("metrics").write_text(
        "".join(spoiled.run.log_file("metrics").read_text().splitlines(keepends=True)[:14])
    )
    assert spoiled.findings(**QUICK) == {}  # at step 140 none is due: the first is saved at 150


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
