"""`unstir doctor` as a person uses it."""

import json
import re
import shlex

from conftest import copied, tiny_config
from unstir.insight.doctor import CHECKS
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer

pytest_plugins = ["spoiled"]


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
