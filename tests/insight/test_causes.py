"""One cause is stated once and has one remedy; `unstir doctor` says it and sets its status."""

import json
import re
import shlex
from typing import get_args, get_type_hints

import pytest

from conftest import copied, tiny_config
from unstir.insight.doctor import CHECKS, HIGHEST, diagnose
from unstir.insight.findings import EXPLAINS, OF_SAMPLES, Finding, causes, explained
from unstir.runs import recipes
from unstir.runs.sections import TrainConfig
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer

pytest_plugins = ["spoiled"]
QUICK = {"samples": False}


def finding(check, severity="problem"):
    return Finding(severity, "measured", f"mend {check}", 2.0, 1.0, check=check, says=f"{check} is amiss")


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
    return {**line, "skipped": 30, "loss": 5.7 if place < 0.02 else 12.0 if place < 0.1 else 1.0}


def test_a_rate_too_high_has_one_remedy_that_names_it(spoiled, command):
    spoiled.metrics(diverging)
    spoiled.config(train__lr=1.0)
    report = diagnose(spoiled.path, **QUICK)
    (cause,) = causes(report.findings)
    assert cause.finding.check == "not-finite" and cause.finding.remedy.endswith("`train.lr=0.002`")
    (diverged,) = [it for it in cause.symptoms if it.check == "not-learned"]
    assert "diverged" in diverged.says and diverged.figure == pytest.approx(12, rel=0.02)
    status, out, _ = command("doctor", spoiled.path, "--no-samples", "--json")
    listed = {each["check"]: each["because"] for each in json.loads(out)["findings"]}
    assert status == 1 and listed.pop("not-finite") == "" and set(listed.values()) == {"not-finite"}
    status, out, _ = command("doctor", spoiled.path, "--no-samples")
    assert "--train.lr 0.002" in " ".join(out.split())
    assert status == 1 and out.count("remedy") == 1 and " ".join(out.split()).count("explains ") == len(cause.symptoms)


def test_the_highest_usual_rate_is_that_of_a_recipe():
    trains = [recipes.load_recipe(name).train for name in recipes.sentences()]
    assert max(it.lr for it in trains if it.optimizer == "muon") == HIGHEST["muon"]
    assert all(it.lr <= HIGHEST[it.optimizer] for it in trains)
    assert HIGHEST.keys() == set(get_args(get_type_hints(TrainConfig)["optimizer"]))


def test_a_run_that_is_well(healthy, command):
    status, out, err = command("doctor", healthy)
    words = " ".join(out.split())
    assert status == 0 and words.startswith("nothing found") and "Traceback" not in err
    assert all(name in words for name in CHECKS) and "forecast finished" in words


def test_a_problem_has_status_1_and_a_warning_0(spoiled, command):
    spoiled.metrics(lambda line, place: {**line, "skipped": 1})
    assert command.done("doctor", spoiled.path, "--no-samples").split()[:2] == ["warning", "not-finite:"]
    spoiled.metrics(lambda line, place: {**line, "skipped": 30})
    status, out, _ = command("doctor", spoiled.path, "--no-samples")
    words = " ".join(out.split())
    assert status == 1 and out.split()[:2] == ["problem", "not-finite:"]
    assert "measured" in words and "30 of 300" in words and "--train.lr 0.001" in words and "skipped" in words


def test_a_line_of_a_finding_is_pasted_whole(spoiled, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    spoiled.metrics(lambda line, place: {**line, "skipped": 30})
    lines = command("doctor", spoiled.path, "--no-samples")[1].splitlines()
    (measured,) = [line for line in lines if "measured" in line]
    assert "30 of 300" in measured and measured.endswith("none should")


def test_json_has_figures_and_thresholds(spoiled, command):
    spoiled.metrics(lambda line, place: {**line, "skipped": 30})
    status, out, _ = command("doctor", spoiled.path, "--no-samples", "--json")
    report = json.loads(out)
    assert status == 1 and report["healthy"] is False
    (finding,) = report["findings"]
    assert finding["check"] == "not-finite" and finding["figure"] == 0.1
    assert finding["threshold"] == 0 and finding["severity"] == "problem" and finding["remedy"]
    assert "brightness" in report["skipped"] and report["forecast"]["steps_left"] == 0


def test_mistakes_are_one_line(tmp_path, spoiled, command):
    for arguments, word in (
        ((tmp_path / "none",), "none does not exist"),
        ((spoiled.path, "--store", tmp_path), "no packed store"),
    ):
        status, out, err = command("doctor", *arguments)
        assert status == 2 and out == "" and word in err and "Traceback" not in err


def test_labels_that_are_no_classes_are_a_problem_and_stop_no_other_check(digits, tmp_path, command):
    store = copied(digits, tmp_path / "digits")
    config = tiny_config(store, train__length="2 steps")
    data = open_data(config, tmp_path / "run")
    Trainer(open_run(config, tmp_path / "run", data), data).run()
    labels = store / "train.labels.npy"
    whole = labels.read_bytes()
    for spoilt in (b"\x63", b"\xff" * 8):  # 99, and -1
        labels.write_bytes(whole[:-8] + spoilt.ljust(8, b"\0"))
        status, out, _ = command("doctor", tmp_path / "run")
        assert status == 1 and "problem  store: " in " ".join(out.split("\n")), out


def test_commands_of_the_doctor_can_be_pasted(spoiled, tmp_path, command, monkeypatch):
    path = spoiled.path.rename(tmp_path / "my run")
    with (path / "metrics.jsonl").open("a") as file:
        file.write("[3]\n{}\n")
    monkeypatch.setenv("COLUMNS", "1000")
    _, out, _ = command("doctor", path, "--no-samples")
    (typed,) = re.findall(r"unstir train .*(?= keeps)", out)
    assert shlex.split(typed) == ["unstir", "train", "--out", str(path)]
