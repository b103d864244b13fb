"""Where each check begins to speak, and that one cause is stated once and has one remedy."""

import dataclasses
import json
import math
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from invented import STATS, facts, said

from conftest import copied, tiny_config
from unstir.insight import doctor as learning
from unstir.insight.doctor import CHECKS, HIGHEST, diagnose
from unstir.insight.facts import Samples, SavedFile
from unstir.insight.findings import EXPLAINS, OF_SAMPLES, Finding, causes, explained
from unstir.runs import recipes
from unstir.runs.sections import TrainConfig
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"least": 100, "most": 132}, None),
        ({"least": 100, "most": 131}, ("problem", 31, 32)),
        ({"std": 0.1}, None),
        ({"std": 0.099}, ("warning", 0.099, 0.1)),
    ],
)
def test_the_range_of_values(change, expected):
    assert said("value-range", facts(), dataclasses.replace(STATS, **change)) == expected


SHARES = [("copies", "copies", 10, 100), ("leak", "leaked", 0, 10)]


@pytest.mark.parametrize(("name", "field", "warning", "problem"), SHARES)
def test_shares_of_a_thousand_images(name, field, warning, problem):
    def of(count):
        return said(name, facts(), dataclasses.replace(STATS, **{field: count}))

    assert of(warning) is None and of(warning + 1) == ("warning", (warning + 1) / 1000, warning / 1000)
    assert of(problem)[0] == "warning" and of(problem + 1)[0] == "problem"


@pytest.mark.parametrize(
    ("num", "expected"), [(0, None), (1, "note"), (10, "note"), (11, "warning"), (990, "warning"), (991, "problem")]
)
def test_refused_files_count_among_all(num, expected):
    store = SimpleNamespace(refused=[("a.png", "broken"), ("b.png", "too")] * 500, count=lambda split: 495, path="s")
    store.refused = store.refused[:num]
    found = said("refused", facts(), store)
    assert found == (expected and (expected, num / (num + 990), 0.01))


@pytest.mark.parametrize(
    ("counts", "labelled", "expected"),
    [
        ((30,), 0, None),  # one class alone
        ((19, 1), 0, None),
        ((191, 9), 0, ("problem", 0.955, 0.95)),
        ((20, 0), 0, ("problem", 1.0, 0.95)),
        ((200, 10, 100), 0, None),
        ((201, 10, 100), 0, ("note", 20.1, 20)),
        ((201, 10, 100), 3, ("warning", 20.1, 20)),
        ((30, 0, 30), 0, ("note", 30, 20)),
        ((10, 15), 2, None),
        ((9, 15), 2, ("warning", 15 / 9, 20)),
        ((9, 15), 0, None),
        ((9, 15, -1), 0, None),  # a label beyond the classes, which the check of the store names
    ],
)
def test_classes_of_unequal_size(counts, labelled, expected):
    labels = torch.cat([torch.full((abs(count),), label) for label, count in enumerate(counts)])
    names = [str(label) for label, count in enumerate(counts) if count >= 0]
    store = SimpleNamespace(labels=lambda split: labels, classes=names)
    assert said("classes", facts(model__num_classes=labelled), store) == expected


def test_a_store_that_has_gone_matters_as_long_as_the_run_is_trained():
    there = SimpleNamespace()
    severity = lambda store, step: said("store", facts(step=step, store=store, store_problem="amiss"))
    assert severity(None, 100) == ("warning", 1, 0)
    assert severity(None, 99) == severity(there, 100) == severity(there, 99) == ("problem", 1, 0)
    for store, says in ((None, "the data cannot be used"), (there, "the data has changed")):
        (found,) = CHECKS["store"].find(facts(store=store, store_problem="amiss"))
        assert found.says == says and found.evidence == "amiss"


def test_overfitting_is_looked_for_at_the_level_of_the_largest_of_all_looks():
    unrest = [0.0001 * (-1) ** k for k in range(100)]

    def look(step, held_out, train):
        values = [[mean + u * step / 10 for u in unrest] for mean in (train, held_out)]
        return {"step": step, "images": step, "of_train": values[0], "of_held_out": values[1]}

    def found(*looks):
        return said("overfit", facts(held_out=looks), looks)

    best, first = look(10, 1.0, 1.0), look(1, 2.0, 2.0)
    assert found(best) is None
    assert found(best, look(20, 1.09, 0.9))[::2] == ("warning", 3.5)
    assert found(best, look(20, 1.11, 0.9))[::2] == ("problem", 3.5)
    assert found(first, best, look(20, 1.15, 0.9))[2] == pytest.approx(math.sqrt(3.5**2 + 2 * math.log(2)))


def lines(step, held_out, train):
    """A line of held_out.jsonl for these losses of images."""
    mean = lambda values: [float(np.mean(values))] * 3
    return {
        "step": step, "images": 8 * step, "train": mean(train), "held_out": mean(held_out),
        "of_train": list(map(float, train)), "of_held_out": list(map(float, held_out)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rise", "change", "unrest", "severity"),
    [
        (0.02, -0.02, 0.005, "problem"),
        (0.005, -0.02, 0.005, "warning"),
        (0.003, -0.0001, 0.1, None),  # what training images do is not known well enough to tell the splits apart
        (0.001, -0.02, 0.005, None),  # the held-out loss may have stayed where it was
        (0.02, +0.0001, 0.005, "problem"),  # remembered already: there is nothing left to fall
        (0.02, +0.01, 0.005, None),  # the network fails at both
    ],
)
def test_overfitting_is_a_rise_that_surely_exceeds_the_change_in_training(rise, change, unrest, severity):
    generator = np.random.default_rng(0)
    images, others = generator.normal(0.1, 0.04, (2, 128))  # from image to image far more than what is looked for
    exactly = lambda mean, std: mean + std * (noise := generator.normal(0, 1, 128)) - std * noise.mean()
    seen = (lines(1000, others, images), lines(3000, others + exactly(rise, 0.005), images + exactly(change, unrest)))
    known = CHECKS["overfit"].run(facts(held_out=seen))
    assert [it.severity for it in known] == ([severity] if severity else [])
    assert not severity or ("checkpoint=1000" in known[0].remedy and 0 < known[0].figure < 100)


def test_what_is_left():
    speeds = [{"step": 40, "images_per_second": value} for value in (1000.0, 0.0, 3.0, 5.0, 5.0, 7.0)]
    left = learning.forecast(facts(lines=tuple(speeds)))
    assert left["steps_left"] == 60 and left["seconds_left"] == 60 * 10 / 5
    assert learning.forecast(facts(step=101))["seconds_left"] == 0
    assert learning.forecast(facts(step=50))["seconds_left"] is None


def saved(step, kind="full", problem=""):
    return SavedFile(step, Path(f"{kind}{step}"), kind, problem)


def test_what_files_are_due_and_what_is_lost():
    check = lambda files, step=50, **of: said("checkpoints", facts(step=step, files=tuple(files), **of))
    due = {"checkpoint__every": "30 steps", "grids__log_spaced": 1}
    assert check([], 29, **due) is None and check([], 30, **due) == ("problem", 0, 1)
    assert check([saved(50)]) is check([saved(100, "slim")], 100) is None
    assert check([saved(50, "slim")]) == ("problem", 0, 1)
    assert check([saved(40), saved(50, "slim", "torn")]) == ("warning", 1, 0)
    assert check([saved(40, problem="torn"), saved(50)]) == ("warning", 1, 0)
    assert check([saved(40), saved(50, problem="torn"), saved(30, problem="torn")]) == ("problem", 2, 0)
    files = (saved(40), saved(50, "slim"), saved(60, problem="torn"))
    (found,) = CHECKS["checkpoints"].find(facts(files=files, step=100))
    assert found.remedy.endswith("of step 50")


@pytest.mark.parametrize(("rise", "expected"), [(1.149, None), (1.16, 1.16)])
def test_a_quarter_above_the_best(rise, expected):
    """Lines that do not scatter decide any rise; the first line is not settled."""

    def log(*quarters):
        losses = [9.0, *(loss for loss in quarters for _ in range(3))]
        lines = tuple({"step": 88 + place, "loss": loss} for place, loss in enumerate(losses))
        return facts(lines=lines), lines

    risen = said("loss-rises", *log(3.0, 3.0, 1.0, rise))
    assert risen == (expected and ("problem", pytest.approx(expected), 1.15))
    assert said("loss-rises", *log(3.0, 3.0, rise, 1.0)) is None
    _, lines = log(1.0, 1.0, 1.0, rise)
    scattering = tuple({**line, "loss": line["loss"] * (1 + 0.5 * (-1) ** k)} for k, line in enumerate(lines))
    assert said("loss-rises", facts(lines=scattering), scattering) is None


@pytest.mark.parametrize(
    ("skipped", "step", "losses", "expected"),
    [
        (0, 100, [1.0], None), (1, 100, [1.0], ("warning", 0.01)), (3, 200, [1.0], ("problem", 0.015)),
        (1, 0, [1.0], ("problem", 1.0)), (0, 100, [1.0, None] + [1.0] * 98, ("warning", 0.01)),
        (0, 100, [1.0] * 199 + [None], ("problem", 0.005)), (2, 100, [1.0] * 9 + [None, 1.0], ("problem", 1 / 11)),
        (None, 100, [1.0], None),
    ],
)  # fmt: skip
def test_gradients_that_were_not_finite(skipped, step, losses, expected):
    lines = tuple({"step": step, "loss": loss, "skipped": skipped} for loss in losses)
    found = said("not-finite", facts(lines=lines), lines)
    assert found == (expected and (expected[0], pytest.approx(expected[1]), 0))


@pytest.fixture
def known(monkeypatch):
    """An untrained network has an error of 2; mean and variance alone give 1/2."""
    monkeypatch.setattr(learning, "outputs_nothing", lambda *_: 2.0)
    monkeypatch.setattr(learning, "learns_nothing", lambda *_: 0.5)


@pytest.mark.parametrize(
    ("losses", "steps", "expected"),
    [
        ([0.9, 0.4, 0.5, 0.6], 100, None), ([0.1, 0.4, 0.5, 0.9], 100, (0.6, 0.5)), ([0.9] * 4, 2000, (0.9, 0.5)),
        ([0.9] * 4, 1999, None), ([None], 2000, None), ([2.6, *[0.9] * 3], 100, (0.9, 0.5)),
        ([2.7, *[0.9] * 3], 100, (1.35, 1.3)), ([2.7, *[0.4] * 3], 100, None),
    ],
)  # fmt: skip
def test_nothing_was_learned_by_the_last_three_lines_or_training_diverged(losses, steps, expected, known):
    length = "100 steps" if steps == 100 else "5000 steps"  # of ten images each: 20,000 are enough
    lines = tuple({"step": steps, "loss": loss} for loss in losses)
    result = said("not-learned", facts(lines=lines, train__length=length), lines, STATS)
    assert result == (expected and ("problem", *map(pytest.approx, expected)))


@pytest.mark.parametrize(("clip", "named"), [(0.0, True), (0.5, False), (1.0, False), (1.1, True)])
def test_a_clip_is_advised_where_there_is_none(clip, named, known):
    lines = tuple({"step": 100, "loss": loss} for loss in (2.7, 0.9, 0.9, 0.9))
    (found,) = CHECKS["not-learned"].find(facts(lines=lines, train__clip=clip), lines, STATS)
    assert ("train.clip=1" in found.remedy) is named


def images(*rows):
    """Images [N, C, H, W] of a row of values a channel."""
    return torch.tensor(rows, dtype=torch.uint8).unsqueeze(-2)


def drawn(name, made, real, step=100):
    return said(name, facts(step=step), Samples(made, real, "by hand"))


SPREAD = [100, 140, 80, 120, 100, 60]  # of a deviation of some 28


@pytest.mark.parametrize(
    ("name", "made", "real", "expected"),
    [
        ("brightness", [[[7, 7]]] * 2, [[[7, 7]]] * 2, None),
        ("brightness", [[[v + 3 for v in SPREAD]]] * 9, [[SPREAD]] * 9, None),
        ("brightness", [[[v + 5 for v in SPREAD]]] * 9, [[SPREAD]] * 9, 5),
        ("brightness", [[[v - 5 for v in SPREAD]]] * 9, [[SPREAD]] * 9, 5),
        ("collapse", [[[0, 0]], [[0, 20]]], [[[0, 0]], [[20, 20]]], None),
        ("collapse", [[[0, 0]], [[0, 19]]], [[[0, 0]], [[20, 20]]], 0.45125),
        ("collapse", [[[0, 0]], [[0, 20]]], [[[5, 5]], [[5, 5]]], None),
    ],
)
def test_what_samples_show(name, made, real, expected):
    found = drawn(name, images(*made), images(*real))
    assert (None if found is None else found[:2]) == (expected and ("problem", pytest.approx(expected)))
    in_training = drawn(name, images(*made), images(*real), step=99)
    assert (None if in_training is None else in_training[0]) == (expected and "warning")


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


def test_what_is_named_as_the_store_and_is_none_is_refused(tmp_path, spoiled, command, refused):
    refused(command("doctor", spoiled.path, "--store", tmp_path), "no packed store")


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
