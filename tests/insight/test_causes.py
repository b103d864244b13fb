"""One cause is stated once and has one remedy: findings are grouped by a table of what explains what."""

import json
import re
from typing import get_args, get_type_hints

import pytest

from unstir.insight.checks_learning import HIGHEST, rates
from unstir.insight.doctor import CHECKS, diagnose
from unstir.insight.findings import EXPLAINS, OF_SAMPLES, Finding, causes, explained
from unstir.runs import recipes
from unstir.runs.config import Config
from unstir.runs.sections import TrainConfig
from unstir.runs.toml import from_dict, to_dict

pytest_plugins = ["spoiled"]
QUICK = {"samples": False}


def finding(check, severity="problem"):
    return Finding(severity, "measured", f"mend {check}", 2.0, 1.0, check=check, says=f"{check} is amiss")


def config(recipe="", **train):
    values = to_dict(recipes.load_recipe(recipe) if recipe else Config())
    values["train"] |= train
    return from_dict({**values, "recipe": recipe}, "test")


def test_the_table_names_checks_and_has_no_circle():
    names = list(EXPLAINS)
    assert {*EXPLAINS, *(name for of in EXPLAINS.values() for name in of)} <= set(CHECKS)
    assert set(OF_SAMPLES) <= set(CHECKS)
    for cause, symptoms in EXPLAINS.items():
        assert cause not in symptoms
        assert all(names.index(cause) < names.index(each) for each in symptoms if each in names), cause


def test_symptoms_go_with_the_first_cause_of_the_table():
    found = explained(map(finding, ("collapse", "not-learned", "value-range", "leak")))
    by_name = {each.check: each for each in found}
    assert by_name["collapse"].because == by_name["not-learned"].because == "value-range"
    mend = by_name["value-range"].remedy
    assert mend == finding("value-range").remedy and by_name["collapse"].remedy not in (
        mend,
        finding("collapse").remedy,
    )
    assert by_name["leak"].because == by_name["value-range"].because == ""
    assert [(cause.finding.check, len(cause.symptoms)) for cause in causes(found)] == [("value-range", 2), ("leak", 0)]


def test_a_cause_is_as_grave_as_what_it_explains_and_a_note_explains_nothing():
    (cause,) = causes(explained([finding("value-range", "warning"), finding("brightness")]))
    assert cause.finding.check == "value-range" and cause.severity == "problem"
    noted = causes(explained([finding("value-range", "note"), finding("brightness")]))
    assert [(cause.finding.check, cause.severity) for cause in noted] == [
        ("brightness", "problem"),
        ("value-range", "note"),
    ]


def diverging(line, place):
    """A log such as a rate of 1 leaves: a leap far above the error of no prediction at all, then that error."""
    return {**line, "loss": 5.7 if place < 0.02 else 12.0 if place < 0.1 else 1.0}


def test_a_rate_too_high_has_one_remedy_that_names_it(spoiled, command):
    spoiled.metrics(diverging)
    spoiled.config(train__lr=1.0)
    report = diagnose(spoiled.path, **QUICK)
    assert {each.check for each in report.findings} >= {"learning-rate", "not-learned"}
    (cause,) = causes(report.findings)
    assert cause.finding.check == "learning-rate" and cause.severity == "problem"
    assert cause.finding.remedy.endswith("--train.lr 0.002")
    assert cause.finding.figure == pytest.approx(12, rel=0.02)
    status, out, _ = command("doctor", spoiled.path, "--no-samples", "--json")
    listed = {each["check"]: each["because"] for each in json.loads(out)["findings"]}
    assert status == 1 and listed.pop("learning-rate") == "" and set(listed.values()) == {"learning-rate"}
    status, out, _ = command("doctor", spoiled.path, "--no-samples")
    assert status == 1 and out.count("remedy") == 1 and " ".join(out.split()).count("explains ") == len(cause.symptoms)


@pytest.mark.parametrize(("peak", "loss"), [(1.6, 0.1), (0.27, 0.27), (1.1, 1.0)])
def test_a_rate_is_accused_only_where_nothing_was_learned_after_a_leap(spoiled, peak, loss):
    """It recovered from a leap; or it never leaped, whether it learned little or nothing."""
    spoiled.metrics(lambda line, place: {**line, "loss": peak if 0.1 < place < 0.15 else loss})
    assert "learning-rate" not in spoiled.findings(**QUICK)


def test_a_rate_far_above_any_usual_one_is_named_where_nothing_was_learned(spoiled):
    spoiled.metrics(lambda line, place: {**line, "loss": 0.93})
    spoiled.config(train__lr=0.07)
    found = spoiled.found("learning-rate", **QUICK)
    assert found.remedy.endswith("--train.lr 0.002") and "diverged" not in found.says
    assert found.figure > found.threshold


@pytest.mark.parametrize(
    ("recipe", "rate", "lower", "higher"),
    [
        ("digits", 4e-3, 4e-3 / 3, None), ("digits", 1.0, 4e-3, None), ("digits", 8e-3, 4e-3, None),
        ("digits", 2e-4, 2e-4 / 3, 6e-4), ("digits", 2e-3, 2e-3 / 3, 4e-3), ("cifar10", 1e-3, 2e-4, None),
        ("", 0.5, HIGHEST["adam"], None), ("", 9e-3, 2e-3, None), ("", 3e-3, 1e-3, None), ("", 1e-6, 1e-6 / 3, 3e-6),
        ("", 2e-4, 2e-4 / 3, None),
    ],
)  # fmt: skip
def test_a_remedy_names_a_rate_near_the_runs_own_or_the_recipes(recipe, rate, lower, higher):
    of = config(recipe, lr=rate)
    assert rates(of) == (pytest.approx(lower), None if higher is None else pytest.approx(higher))


def test_the_highest_usual_rate_is_that_of_a_recipe():
    trains = [recipes.load_recipe(name).train for name in recipes.sentences()]
    assert max(each.lr for each in trains if each.optimizer == "muon") == HIGHEST["muon"]
    assert all(each.lr <= HIGHEST[each.optimizer] for each in trains)
    assert HIGHEST.keys() == set(get_args(get_type_hints(TrainConfig)["optimizer"]))
    assert rates(config(optimizer="muon", lr=0.5))[0] == HIGHEST["muon"]
    assert rates(config("digits", optimizer="adam", lr=0.5))[0] == HIGHEST["adam"]  # and not the recipe's, of Muon


def test_no_remedy_multiplies_the_rate_by_ten(spoiled):
    """The loss fell smoothly and too little, at a rate of a tenth of the usual one and at the usual one."""
    spoiled.metrics(lambda line, place: {**line, "loss": 1 - 0.05 * place})
    for rate, named in ((2e-5, ["6e-05"]), (2e-4, [])):
        spoiled.config(train__lr=rate)
        remedy = spoiled.found("not-learned", **QUICK).remedy
        assert re.findall(r"--train\.lr (\S+)", remedy) == named and "--train.length" in remedy
