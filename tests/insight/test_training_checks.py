"""Faults planted in the log, the weights and the settings of a healthy run: each found by its own check alone."""

import dataclasses
import json

import pytest

from unstir.insight import gather as module
from unstir.insight.doctor import CHECKS, diagnose
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


def test_weights_of_another_run_are_a_problem(spoiled):
    card.save(spoiled.path, dataclasses.replace(spoiled.run.data, content_hash="0" * 64))
    assert spoiled.findings(**QUICK)["settings"] == "problem"


def test_without_samples_no_network_is_asked_for_an_image(healthy, monkeypatch):
    asked, model = [], Run.model
    monkeypatch.setattr(Run, "model", lambda *args, **options: asked.append(1) or model(*args, **options))
    report = diagnose(healthy, samples=False)
    assert asked == [] and {"brightness", "collapse"} <= set(report.skipped) and "checkpoints" in report.checked
    monkeypatch.setattr(module, "WORK", 1.0)  # of a network too large for 64 images in some seconds
    assert len(gather(healthy).samples.made) == 16 and len(asked) == 1
