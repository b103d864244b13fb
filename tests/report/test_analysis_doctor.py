"""The advice of a page knows the doctor: his remedies come first, and nothing is advised against them."""

import dataclasses
import re

import pytest

import runs
from runs import advice, by_name
from unstir.doctor import CHECKS, Finding, causes
from unstir.doctor.check import explained
from unstir.report.analysis import ASIDE, NOT_MENDED, SAME, analyse
from unstir.report.wording import coded, sentence

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
