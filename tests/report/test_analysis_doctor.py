"""The advice of a page knows the doctor: his remedies come first, and nothing is advised against them."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

import runs
from runs import advice, by_name
from unstir.doctor import CHECKS, Finding, causes
from unstir.doctor.check import Needs, RunFacts, explained
from unstir.doctor.held_out import STEEP
from unstir.report.analysis import ASIDE, NOT_MENDED, SAME, analyse
from unstir.report.wording import coded, sentence
from unstir.runs.run import Run

SIGNAL = Finding(
    "problem",
    "an image shifts x_T by 8.9 standard deviations of the noise; at most 1 is harmless",
    "a new run with --diffusion.schedule cosine, or a steeper linear one, --diffusion.beta_T 0.2",
    8.9,
    1.0,
    check="signal-left",
    says="x_T keeps signal, while sampling begins from pure noise",
)


def finding(check, severity="problem"):
    return Finding(severity, "measured", "a new run with --mend.it 1", 2.0, 1.0, check=check, says=f"{check} is amiss")


def with_findings(known, *findings):
    return dataclasses.replace(known, findings=tuple(explained(findings)))


def problems(known):
    return [cause for cause in causes(known.findings) if cause.severity == "problem"]


def test_the_tables_of_findings_name_checks():
    assert {*SAME, *NOT_MENDED, *ASIDE} <= set(CHECKS)


def test_a_run_whose_noise_schedule_is_wrong_is_not_advised_to_train_for_longer():
    assert advice(runs.too_short()) == ["longer"]
    known = with_findings(runs.too_short(), finding("brightness"), SIGNAL)
    assert advice(known) == ["mend signal-left"]
    text = by_name(known)["mend signal-left"].text
    assert text.startswith("Because x_T keeps signal") and "(it explains 1 other finding too)" in text
    assert text.endswith("`--diffusion.schedule cosine`, or a steeper linear one, `--diffusion.beta_T 0.2`.")
    assert by_name(known)["mend signal-left"].figure == "doctor"
    assert not any("longer" in each.text for each in analyse(known) if each.topic == "next")


def test_a_warning_comes_before_other_advice_and_stops_what_it_makes_useless():
    assert advice(with_findings(runs.too_short(), finding("signal-left", "warning"))) == ["mend signal-left"]
    assert advice(with_findings(runs.too_short(), finding("grid-sampler", "warning"))) == [
        "mend grid-sampler",
        "longer",
    ]
    assert advice(with_findings(runs.good(), finding("leak", "warning"))) == ["mend leak", "fewer calls"]
    assert advice(with_findings(runs.good(), finding("few-images", "note"))) == ["fewer calls"]


@pytest.mark.parametrize(
    ("run", "check", "severity", "expected"),
    [
        ("too_short", "still-falling", "warning", ["longer"]),
        ("over_fitted", "overfit", "problem", ["stop earlier", "regularise"]),
        ("diverged", "learning-rate", "problem", ["steadier"]),
        ("good", "overfit", "problem", ["mend overfit"]),
    ],
)
def test_what_both_say_is_advised_once(run, check, severity, expected):
    assert advice(with_findings(getattr(runs, run)(), finding(check, severity))) == expected


@pytest.mark.parametrize(
    ("run", "check", "severity", "advised"),
    [("diverged", "not-finite", "problem", "steadier"), ("too_short", "still-falling", "warning", "longer")],
)
def test_what_both_say_keeps_the_place_of_the_finding(run, check, severity, advised):
    """A lesser finding does not go before it, which the summary, that has the first alone, would name."""
    known = with_findings(getattr(runs, run)(), finding(check, severity), finding("grid-sampler", "warning"))
    assert advice(known) == [advised, "mend grid-sampler"]


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
        assert not re.search("under-fitted|not converged", " ".join(each.text for each in analyse(known)))


def test_where_the_doctor_sees_a_steep_fall_in_the_log_the_page_calls_it_no_small_matter():
    text = lambda known: by_name(known)["more to gain"].text
    known = falling_by(0.05)
    assert text(known).endswith("may gain a little more, which is no fault of the run.")
    assert text(with_findings(known, finding("still-falling", "warning"))).endswith("may gain a little more.")


def test_a_fall_is_counted_by_doublings_however_far_apart_the_snapshots_are():
    """Over a stretch of 3.2-fold, as the recipes' snapshots are, the loss falls by 11%: less for each doubling."""
    known = falling_by(0.07, moments=(0, 95, 300, 949, runs.STEPS))
    found = by_name(known)["more to gain"]
    assert "(3.2-fold)" in found.text and "(11% of it, 7% for each doubling" in found.text and not examined(known)


def test_what_a_finished_run_may_still_gain_is_advised_where_its_samples_need_it():
    assert advice(falling_by(0.05)) == ["next"] and advice(falling_by(0.16)) == ["longer"]
    near, far = (runs.evaluation(fd=fd, memory=runs.copied()) for fd in (0.24, 5.0))
    assert advice(falling_by(0.05, by_step=(near,))) == ["next"]
    assert advice(falling_by(0.05, by_step=(far,))) == ["longer"]  # and no larger network


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_run_that_is_to_go_on_is_not_called_too_short(rate):
    known = falling_by(rate, length=2 * runs.STEPS)
    found = by_name(known)
    assert found["more to gain"].text.endswith("; the run is not at its end.") and "under-fitted" not in found
    assert found["more to gain"].verdict == "neutral" and "let the run go on" in found["longer"].text
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


def test_whether_the_average_lags_is_said_by_the_doctor_where_both_weights_were_measured():
    lagging = lambda images: 0.5 if images else 1.0
    known = runs.facts(held_out=runs.held_out(curve=lagging), metrics=runs.metrics(curve=runs.flat))
    assert "average lags" in by_name(known) and advice(known) == ["quicker average"]
    measured = dataclasses.replace(known, checked=("average-behind",))
    assert "average lags" not in by_name(measured) and "quicker average" not in advice(measured)
    for severity in ("problem", "warning"):
        found = with_findings(measured, finding("average-behind", severity))
        assert advice(found)[0] == "mend average-behind" and "average lags" not in by_name(found)


def test_a_diverged_rate_has_one_problem_and_one_remedy():
    unsteady = [finding(check) for check in ("not-learned", "first-loss", "brightness", "noise", "learning-rate")]
    known = with_findings(runs.diverged(), *unsteady)
    (problem,) = problems(known)
    assert problem.finding.check == "learning-rate" and len(problem.symptoms) == 4
    assert sentence(problem.finding.remedy) == "A new run with `--mend.it 1`."
    assert advice(known) == ["steadier"]


def test_problems_stand_apart_from_warnings_and_notes():
    of = with_findings(runs.good(), finding("few-images", "note"), finding("grid-sampler", "warning"), SIGNAL)
    assert [(each.finding.check, each.severity) for each in causes(of.findings)] == [
        ("signal-left", "problem"),
        ("grid-sampler", "warning"),
        ("few-images", "note"),
    ]
    (problem,) = problems(of)
    assert sentence(problem.finding.says) == "x_T keeps signal, while sampling begins from pure noise."
    assert sentence(problem.finding.evidence).endswith("harmless.") and problem.symptoms == ()
    raised = with_findings(runs.good(), finding("brightness"), finding("slow-average", "warning"))
    (problem,) = problems(raised)
    assert problem.finding.check == "slow-average" and problem.severity == "problem"
    assert [sentence(each.says) for each in problem.symptoms] == ["Brightness is amiss."]
    assert problems(runs.good()) == []


def test_sentences_of_the_doctor_are_sentences_of_the_page():
    known = with_findings(runs.good(), SIGNAL, finding("leak", "warning"))
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
