"""The advice of a page is the doctor's remedies where it finds a problem; both judge a run's length by one rule."""

import dataclasses
import math

import pytest

import runs
from runs import advice, by_name, examined
from unstir.insight.findings import Finding, explained
from unstir.insight.held_out import STEEP


def finding(check, severity="problem"):
    return Finding(severity, "measured", "a new run with `mend.it=1`", 2.0, 1.0, check=check, says=f"{check} is amiss")


def test_the_remedies_of_problems_and_warnings_are_all_that_is_advised():
    findings = explained([finding("brightness"), finding("not-learned", "warning")])
    (name,) = advice(runs.good(), findings)
    mend = by_name(runs.good(), findings)[name]
    assert advice(runs.good()) == ["fewer calls"] and mend.text.endswith("`mend.it=1`.")
    assert mend.figure == "doctor" and name == "mend not-learned"
    assert advice(runs.good(), [finding("few-images", "note")]) == ["fewer calls"]


MORE = "more to gain"


def falling_by(rate, moments=runs.MOMENTS, **changes):
    """A run whose held-out loss each doubling of the images lowers by the share ``rate``, as that of its log."""
    curve = lambda images: 0.5 * (1 + images) ** math.log2(1 - rate)
    held_out = runs.held_out(curve=curve, noise=0.002, moments=moments)
    return runs.facts(held_out=held_out, lines=runs.metrics(curve=curve), **changes)


@pytest.mark.parametrize("rate", [0.004, 0.05, 0.09, 0.11, 0.2])
def test_the_page_and_the_doctor_call_the_same_runs_too_short_and_say_it_once(rate):
    known = falling_by(rate)
    found = by_name(known)
    assert (MORE in found) == (0.01 < rate < 0.1)
    assert bool(examined(known)) == (rate > 0.1)
    for each in examined(known):
        assert each.severity == "warning" and each.figure == pytest.approx(rate, abs=0.005) and each.threshold == STEEP


def test_what_a_finished_run_may_still_gain_is_advised_where_its_samples_need_it():
    near, far = (runs.evaluation(fd=fd, memory=runs.copied()) for fd in (0.24, 5.0))
    assert advice(falling_by(0.05)) == advice(falling_by(0.05, by_step=(near,))) == ["next"]
    longer = by_name(falling_by(0.05, by_step=(far,)))["longer"].text
    assert '"6000 steps"' in longer and '"5800 steps"' in longer


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_run_that_is_to_go_on_is_not_called_too_short(rate):
    known = falling_by(rate, config={"train__length": f"{2 * runs.STEPS} steps"})
    found = by_name(known)
    assert found[MORE].verdict == "neutral"
    assert "6,000" in found["longer"].text and examined(known) == []


@pytest.mark.parametrize("on_train", [0.0, 0.3])
def test_a_fall_of_held_out_images_alone_is_no_lack_of_training(on_train):
    """Where the loss of training images does not fall too, more training is no remedy."""
    known = falling_by(0.16)
    *early, last = known.held_out
    stayed = [loss * (1 + on_train) for loss in early[-1]["of_train"]]
    known = dataclasses.replace(known, held_out=(*early, {**last, "of_train": stayed}))
    assert MORE not in by_name(known) and examined(known) == []
