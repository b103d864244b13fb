"""Faults planted in a healthy run, its log, weights, files, settings and images: each found by its own check alone."""

import dataclasses
import json
import shutil

import pytest
import torch

from unstir.data import Store
from unstir.insight import gather as module
from unstir.insight.doctor import CHECKS, diagnose, examine
from unstir.insight.gather import gather, real_images
from unstir.runs import checkpoint, lines
from unstir.runs.run import Run

pytest_plugins = ["spoiled"]
QUICK = {"samples": False}


def test_of_a_run_that_is_well_nothing_is_said(healthy, counts):
    report = diagnose(healthy)
    assert report.findings == () and report.healthy
    assert set(report.checked) == set(CHECKS) and report.skipped == {}
    assert len({job for job, *_ in counts}) == 3
    assert report.forecast["steps_left"] == report.forecast["seconds_left"] == 0


def scaled(factor, since=0.0, until=1.0):
    """A change of the log that multiplies the loss in a part of it."""

    def change(line, place):
        line["loss"] *= factor if since <= place <= until else 1.0
        return line

    return change


def put(**values):
    return lambda line, place: {**line, **values}


PLANTED = {
    "loss-rises": (lambda line, place: scaled(1 + 1.5 * max(place - 0.5, 0))(line, place), {"loss-rises": "problem"}),
    "not-finite, once": (put(skipped=1), {"not-finite": "warning"}),
    "not-finite, often": (put(skipped=30), {"not-finite": "problem"}),
    "not-learned": (put(loss=0.27), {"not-learned": "problem"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_in_the_log_is_found_by_its_check(spoiled, name):
    change, expected = PLANTED[name]
    spoiled.metrics(change)
    assert spoiled.findings(**QUICK) == expected


def test_losses_that_are_no_number_are_named(spoiled):
    spoiled.metrics(lambda line, place: {**line, "loss": None if place > 0.9 else line["loss"]})
    assert spoiled.findings(**QUICK)["not-finite"] == "problem"
    assert spoiled.found("not-finite", **QUICK).remedy.endswith("`train.lr=0.001`")
    spoiled.config(train__clip=0.0)
    assert spoiled.found("not-finite", **QUICK).remedy.endswith("`train.clip=1`")


def test_damaged_lines_are_a_problem_and_left_out(spoiled):
    sound = spoiled.run.metrics()
    for broken in (b"\xff\xfe\x80", b"[3, null]", b"3", b'"step"', b'{"step": null}', b'{"step": NaN}', b'{"loss": 1}'):
        lines.write(spoiled.run.log_file("metrics"), sound[:2])
        with spoiled.run.log_file("metrics").open("ab") as file:
            file.write(broken + b"\n" + json.dumps(sound[-1]).encode())
        assert spoiled.run.metrics() == [*sound[:2], sound[-1]]
        found = spoiled.found("logs", **QUICK)
        assert found.severity == "problem" and "line 3" in found.evidence and found.figure == 1


def test_weights_of_another_run_are_none_of_a_run(spoiled):
    for _, path in spoiled.run.saved:
        found = checkpoint.load(path)
        checkpoint.save(path.parent, dataclasses.replace(found, data={**found.data, "run": "another"}))
    found = spoiled.findings(**QUICK)
    assert (found["checkpoints"], found["figures"]) == ("problem", "warning")


def test_without_samples_no_network_is_asked_for_an_image(healthy, monkeypatch):
    asked, model = [], Run.model
    monkeypatch.setattr(Run, "model", lambda *args, **options: asked.append(1) or model(*args, **options))
    report = diagnose(healthy, samples=False)
    assert asked == [] and {"brightness", "collapse"} <= set(report.skipped) and "checkpoints" in report.checked
    monkeypatch.setattr(module, "WORK", 1.0)  # of a network too large for 64 images in some seconds
    assert len(gather(healthy).samples.made) == 16 and len(asked) == 1


OF_SAMPLES = {"brightness", "collapse"}


@pytest.fixture(scope="module")
def facts(healthy):
    """The healthy run with 64 samples drawn."""
    return gather(healthy)


def found(facts, made):
    """What is said of these images in place of the samples."""
    report = examine(dataclasses.replace(facts, samples=dataclasses.replace(facts.samples, made=made)))
    return {finding.check: finding.severity for finding in report.findings}


def biased(channels, by):
    """A change of weights that shifts the output, which is the predicted noise, in these channels."""

    def change(name, tensor):
        if name != "output_conv.bias":
            return tensor
        shifted = tensor.clone()
        shifted[channels] += by
        return shifted

    return change


def test_a_bias_of_all_channels_is_a_brightness(spoiled):
    spoiled.weights(biased([0, 1, 2], -0.3))
    found = spoiled.findings()
    assert found == {"brightness": "problem"}
    assert "lighter" in spoiled.found("brightness").says


@pytest.mark.parametrize("num", [16, 64])
@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_the_chance_of_few_samples_does_not_alarm(facts, kind, num, healthy):
    """A hundred sets of real images in place of samples: nothing is said of any.

    Photographs differ in brightness and colour so much (here as CIFAR-10's do) that means of few are often far off.
    """
    generator = torch.Generator().manual_seed(num)
    store = Store.open(Run.open(healthy).config.data.store)
    images = torch.cat([store.images("held_out"), store.images("train")])
    if kind == "photographs":
        light, colour = (std * torch.randn(4000, c, 1, 1, generator=generator) for std, c in ((31, 1), (18, 3)))
        inside = 54 * torch.randn(4000, 1, 8, 8, generator=generator)
        images = (118 + light + colour + inside).clamp(0, 255).to(torch.uint8)
    within = dataclasses.replace(facts, samples=dataclasses.replace(facts.samples, real=images[:2000]))
    of_samples = [check for check in CHECKS.values() if "samples" in check.needs]
    assert {check.name for check in of_samples} == OF_SAMPLES
    for repeat in range(100):
        made = images[torch.randperm(len(images), generator=generator)[:num]]
        drawn = dataclasses.replace(within, samples=dataclasses.replace(within.samples, made=made))
        assert [finding for check in of_samples for finding in check.run(drawn)] == []
        assert repeat or found(within, made) == {}  # the other checks look at no sample: once will do


def test_real_images_beside_samples_are_of_their_classes(make_run):
    run, store = make_run(model__num_classes=10)
    real = real_images(store, run.labels.of(torch.arange(20)).repeat(102), 2048, "test")
    labels = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(store.images("train"), store.labels("train"), strict=True)
    }
    counts = torch.bincount(torch.tensor([labels[image.numpy().tobytes()] for image in real]), minlength=10)
    assert counts.min() == counts.max() and counts.sum() > 1000


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

    def then_replaced(folder, run=None):
        found = listed(folder, run)
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
