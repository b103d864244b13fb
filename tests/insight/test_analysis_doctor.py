"""The advice of a page is the doctor's remedies where it finds a problem; both judge a run's length by one rule."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

import runs
from runs import advice, by_name
from unstir.insight.analysis import analyse
from unstir.insight.doctor import CHECKS, Finding, causes
from unstir.insight.findings import Needs, RunFacts, explained
from unstir.insight.held_out import STEEP
from unstir.insight.wording import coded, sentence
from unstir.runs.run import Run


def finding(check, severity="problem"):
    return Finding(severity, "measured", "a new run with --mend.it 1", 2.0, 1.0, check=check, says=f"{check} is amiss")


def with_findings(known, *findings):
    return dataclasses.replace(known, findings=tuple(explained(findings)))


def problems(known):
    return [cause for cause in causes(known.findings) if cause.severity == "problem"]


def test_the_remedies_of_problems_and_warnings_are_all_that_is_advised():
    known = with_findings(runs.good(), finding("brightness"), finding("learning-rate", "warning"))
    assert advice(runs.good()) == ["fewer calls"] and advice(known) == ["mend learning-rate"]
    mend = by_name(known)["mend learning-rate"]
    assert mend.text == (
        "Because learning-rate is amiss (it explains 1 other finding too): a new run with `--mend.it 1`."
    )
    assert mend.figure == "doctor" and problems(known)[0].finding.check == "learning-rate"
    assert advice(with_findings(runs.good(), finding("few-images", "note"))) == ["fewer calls"]


def examined(known):
    """What the doctor's check of the length says of the same logs."""
    needs = Needs(disk=1, files=0)
    run, held_out = Run(Path("run"), known.config, known.data), known.held_out
    of_run = RunFacts(
        run=run, lines=known.metrics, files=(), store=None, store_problem="", needs=needs, held_out=held_out
    )
    return CHECKS["still-falling"].run(of_run)


def falling_by(rate, moments=runs.MOMENTS, **changes):
    """A run whose held-out loss each doubling of the images lowers by the share ``rate``, as that of its log."""
    curve = lambda images: 0.5 * (1 + images) ** math.log2(1 - rate)
    held_out = runs.held_out(curve=curve, noise=0.002, moments=moments)
    return runs.facts(held_out=held_out, metrics=runs.metrics(curve=curve), **changes)


@pytest.mark.parametrize("rate", [0.004, 0.02, 0.05, 0.09, 0.11, 0.16, 0.2])
def test_the_page_and_the_doctor_call_the_same_runs_too_short(rate):
    known = falling_by(rate)
    found = {"under-fitted", "more to gain", "last stretch"} & by_name(known).keys()
    expected = "last stretch" if rate < 0.01 else "more to gain" if rate < 0.1 else "under-fitted"
    assert found == {expected}
    text, finding = by_name(known)[expected].text, examined(known)
    assert bool(finding) == (expected == "under-fitted")
    if expected != "last stretch":
        assert f"{rate:.0%} for each doubling of the images" in text
    if finding:
        assert finding[0].severity == "warning" and f"which is {rate:.0%} for each doubling" in finding[0].evidence
        assert finding[0].figure == pytest.approx(rate, abs=0.005) and finding[0].threshold == STEEP
        assert by_name(known)[expected].verdict == "bad" and "under-fitted" in text
    else:
        assert by_name(known)[expected].verdict in ("good", "neutral")
        assert not re.search("under-fitted", " ".join(each.text for each in analyse(known)))


def test_a_fall_is_counted_by_doublings_however_far_apart_the_snapshots_are():
    """Over a stretch of 3.2-fold, as the recipes' snapshots are, the loss falls by 11%: less for each doubling."""
    known = falling_by(0.07, moments=(0, 95, 300, 949, runs.STEPS))
    found = by_name(known)["more to gain"]
    assert "(3.2-fold)" in found.text and "(11% of it, 7% for each doubling" in found.text and not examined(known)


def test_what_a_finished_run_may_still_gain_is_advised_where_its_samples_need_it():
    assert advice(falling_by(0.05)) == ["next"]
    steep = falling_by(0.16)
    assert advice(with_findings(steep, *examined(steep))) == ["mend still-falling"]
    near, far = (runs.evaluation(fd=fd, memory=runs.copied()) for fd in (0.24, 5.0))
    assert advice(falling_by(0.05, by_step=(near,))) == ["next"]
    longer = by_name(falling_by(0.05, by_step=(far,)))["longer"].text
    assert '`unstir train --out RUN --train.length "6000 steps" --train.lr_period "5800 steps"`' in longer
    constant = {"train__lr_schedule": "constant", "train__lr_period": "0 steps", "train__length": "128 epochs"}
    text = by_name(falling_by(0.05, by_step=(far,), config=constant))["longer"].text
    assert text.endswith('`unstir train --out RUN --train.length "256 epochs"`.')


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_run_that_is_to_go_on_is_not_called_too_short(rate):
    known = falling_by(rate, length=2 * runs.STEPS)
    found = by_name(known)
    assert found["more to gain"].text.endswith("; the run is not at its end.") and "under-fitted" not in found
    assert (
        found["more to gain"].verdict == "neutral"
        and "let the run go on from step 3,000 to its end at 6,000" in found["longer"].text
    )
    going_on = dataclasses.replace(known, config=dataclasses.replace(known.config, train=longer(known.config.train)))
    assert examined(falling_by(0.2)) and examined(going_on) == []


def longer(train):
    return dataclasses.replace(train, length=f"{2 * runs.STEPS} steps")


@pytest.mark.parametrize("on_train", [0.0, 0.3])
def test_a_fall_of_held_out_images_alone_is_no_lack_of_training(on_train):
    """Where the loss of training images does not fall too, more training is no remedy."""
    known = falling_by(0.16)
    *early, last = known.held_out
    stayed = [loss * (1 + on_train) for loss in early[-1]["of_train"]]
    known = dataclasses.replace(known, held_out=(*early, {**last, "of_train": stayed}))
    assert by_name(known)["last stretch"].verdict == "good" and examined(known) == []


def test_problems_stand_apart_from_warnings_and_notes():
    of = with_findings(runs.good(), finding("few-images", "note"), finding("leak", "warning"), finding("value-range"))
    assert [(each.finding.check, each.severity) for each in causes(of.findings)] == [
        ("value-range", "problem"),
        ("leak", "warning"),
        ("few-images", "note"),
    ]
    raised = with_findings(runs.good(), finding("brightness"), finding("value-range", "warning"))
    (problem,) = problems(raised)
    assert problem.finding.check == "value-range" and problem.severity == "problem"
    assert [sentence(each.says) for each in problem.symptoms] == ["Brightness is amiss."]
    assert problems(runs.good()) == []


def test_sentences_of_the_doctor_are_sentences_of_the_page():
    known = with_findings(runs.good(), finding("value-range"), finding("leak", "warning"))
    for each in analyse(known):
        if each.topic == "next":
            assert re.fullmatch(r"[^<>\n]+[.]", each.text) and each.text.count("`") % 2 == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "a new run with --train.lr 0.001 and --train.clip 1",
            "a new run with `--train.lr 0.001` and `--train.clip 1`",
        ),
        ('--train.length "600 steps", which goes on', '`--train.length "600 steps"`, which goes on'),
        ("sample with --no-ema; in a new run", "sample with `--no-ema`; in a new run"),
        ("train for longer (--train.length)", "train for longer (`--train.length`)"),
        ("--grids.sampler dpmpp_2m --grids.steps 15, which", "`--grids.sampler dpmpp_2m` `--grids.steps 15`, which"),
        ("a run with --train.lr 3e-05.", "a run with `--train.lr 3e-05`."),
    ],
)
def test_options_are_code(text, shown):
    assert coded(text) == shown


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("the loss rises", "The loss rises."),
        ("train.warmup=200 steps is most of the run", "train.warmup=200 steps is most of the run."),
        ("x_T holds signal.", "x_T holds signal."),
    ],
)
def test_a_sentence_begins_with_a_capital_but_for_the_name_of_a_setting(clause, expected):
    assert sentence(clause) == expected
