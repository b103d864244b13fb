"""Faults planted in the log, the weights and the settings of a healthy run: each found by its own check alone."""

import dataclasses
import json
import math

import pytest
import torch

from refusals import refusing
from unstir.errors import UserError
from unstir.insight.doctor import CHECKS, diagnose, examine
from unstir.insight.facts import Errors
from unstir.insight.gather import gather
from unstir.runs import card, lines
from unstir.runs.run import Run

pytest_plugins = ["spoiled"]
QUICK = {"samples": False}


def test_of_a_run_that_is_well_nothing_is_said(healthy, counts):
    report = diagnose(healthy)
    assert report.findings == () and report.healthy
    assert set(report.checked) == set(CHECKS) and report.skipped == {}
    assert len({job for job, *_ in counts}) == 3
    assert report.forecast["steps_left"] == report.forecast["seconds_left"] == report.forecast["disk_bytes"] == 0


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
    "still-falling": (
        lambda line, place: {**line, "loss": 0.2 * math.exp(-1.5 * place) * (1 + 0.01 * math.sin(line["step"]))},
        {"still-falling": "warning"},
    ),
    "not-finite, once": (put(skipped=1), {"not-finite": "warning"}),
    "not-finite, often": (put(skipped=30), {"not-finite": "problem"}),
    "not-learned": (put(loss=0.27), {"not-learned": "problem"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_in_the_log_is_found_by_its_check(spoiled, name):
    change, expected = PLANTED[name]
    spoiled.metrics(change)
    assert spoiled.findings(**QUICK) == expected


def test_small_batches_are_no_fault(spoiled):
    generator = torch.Generator().manual_seed(0)
    noise = lambda: (0.4 * torch.randn((), generator=generator)).exp().item()
    spoiled.metrics(lambda line, place: {**line, "loss": 0.1 * noise()})
    assert spoiled.findings(**QUICK) == {}
    spoiled.metrics(lambda line, place: {**line, "loss": 0.1 + 0.002 * math.sin(line["step"]) + 1e-4 * line["step"]})
    assert set(spoiled.findings(**QUICK)) == {"loss-rises"}


def test_losses_that_are_no_number_are_named(spoiled):
    spoiled.metrics(lambda line, place: {**line, "loss": None if place > 0.9 else line["loss"]})
    assert spoiled.findings(**QUICK)["not-finite"] == "problem"
    assert spoiled.found("not-finite", **QUICK).remedy.endswith("--train.lr 0.001")
    spoiled.config(train__clip=0.0)
    assert spoiled.found("not-finite", **QUICK).remedy.endswith("--train.clip 1")


def test_an_average_worse_than_its_weights_is_measured(spoiled):
    generator = torch.Generator().manual_seed(0)
    noisy = lambda name, t: t + 0.3 * t.std() * torch.randn(t.shape, generator=generator) if t.ndim > 1 else t
    spoiled.weights(noisy, parts=("ema",))
    found = spoiled.findings()
    assert found["average-behind"] == "problem"
    assert set(found) <= {"average-behind", "collapse", "brightness"}


def test_an_average_whose_error_is_not_finite_is_behind_its_weights(healthy):
    facts = gather(healthy, samples=False)
    raw = torch.linspace(0.1, 0.2, 8, dtype=torch.float64)
    for average, ratio in (([math.inf] * 3 + [0.2] * 5, math.inf), ((3 * raw).tolist(), pytest.approx(3))):
        errors = Errors(raw, torch.tensor(average, dtype=torch.float64))
        (finding,) = examine(dataclasses.replace(facts, errors=errors)).findings
        assert (finding.check, finding.severity, finding.figure) == ("average-behind", "problem", ratio)
        assert "inf " not in finding.evidence and "nan" not in finding.evidence


def test_damaged_lines_are_a_problem_and_left_out(spoiled):
    sound = spoiled.run.metrics()
    for broken in (b"\xff\xfe\x80", b"[3, null]", b"3", b'"step"', b'{"step": null}', b'{"step": NaN}', b'{"loss": 1}'):
        lines.write(spoiled.run.metrics_file, sound[:2])
        with spoiled.run.metrics_file.open("ab") as file:
            file.write(broken + b"\n" + json.dumps(sound[-1]).encode())
        assert spoiled.run.metrics() == [*sound[:2], sound[-1]]
        found = spoiled.found("logs", **QUICK)
        assert found.severity == "problem" and "line 3" in found.evidence and found.figure == 1


def test_weights_of_another_run_are_a_problem(spoiled):
    card.save(spoiled.path, dataclasses.replace(spoiled.run.data, content_hash="0" * 64))
    assert spoiled.findings(**QUICK)["settings"] == "problem"


def test_without_samples_no_network_is_asked_for_an_image_or_a_loss(healthy, monkeypatch):
    asked, model = [], Run.model
    monkeypatch.setattr(Run, "model", lambda *args, **options: asked.append(1) or model(*args, **options))
    report = diagnose(healthy, samples=False)
    assert asked == [] and {"brightness", "average-behind"} <= set(report.skipped) and "checkpoints" in report.checked
    diagnose(healthy)
    assert len(asked) == 3  # to draw, and for the losses of the raw and of the averaged weights


def test_a_folder_without_a_run_and_a_wrong_store_are_refused(spoiled, tmp_path):
    with refusing("", tmp_path):
        diagnose(tmp_path)
    with pytest.raises(UserError, match=str(tmp_path)):
        diagnose(spoiled.path, store=tmp_path, samples=False)
