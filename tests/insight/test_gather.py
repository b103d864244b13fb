"""What is gathered of a run: which bound, why nothing is drawn, and logs with losses that are not finite."""

import dataclasses
import math
import re
from types import SimpleNamespace

import pytest

from runs import MOMENTS, by_name, held_out, metrics
from runs import facts as simulated
from unstir.insight import gather as module
from unstir.insight.doctor import examine
from unstir.insight.facts import MISSING, Facts
from unstir.insight.gather import gather, own_bound, with_samples
from unstir.runs import files


@pytest.mark.parametrize(
    ("store", "loaded", "classes", "reason"),
    [
        (None, None, 0, MISSING["store"]),
        ((1, (1, 8, 8)), None, 0, "the data does not fit the run"),
        ((2, (1, 8, 9)), None, 0, "the data does not fit the run"),
        ((2, (1, 8, 8)), None, 0, MISSING["loaded"]),
        ((2, (1, 8, 8)), "weights", 3, "the data has no labels"),
    ],
)
def test_without_data_that_fits_or_weights_nothing_is_drawn(store, loaded, classes, reason):
    config = SimpleNamespace(model=SimpleNamespace(num_classes=classes))
    run = SimpleNamespace(data=SimpleNamespace(shape=(1, 8, 8)), config=config)
    there = store and SimpleNamespace(count=lambda split: store[0], shape=store[1], labelled=False)
    assert with_samples(Facts(run=run, store=there, loaded=loaded)).unmeasured == reason


def test_of_bounds_the_newest_of_these_weights_by_the_usual_settings_is_gathered(tmp_path, monkeypatch):
    (folder := tmp_path / "likelihood").mkdir()
    run = SimpleNamespace(path=tmp_path)
    monkeypatch.setattr(module, "is_own", lambda run, step, ema, weights, identity: weights == f"hash {step}")
    usual = {"step": 9, "split": "held_out", "variance": "large", "clip": True, "ema": True, "seed": 0}
    usual |= {"dtype": "float32", "calls": 1000, "T": 1000, "run": "r"}
    rest = {"prior": 0.001, "decoder": 0.5, "times": [2], "curve": [0.1], "total": [0.6], "num_samples": 299}

    def write(name, bits, num=299, **other):
        how = {"weights": f"hash {other.get('step', 9)}", **usual, **other}
        values = {"bits_per_dim": bits, "standard_error": 0.02, "num": num, "protocol": how, **rest}
        (folder / f"{name}.json").write_text(files.encode(values))

    write("old", 5.0, step=5)
    write("train", 4.8, split="train")
    assert own_bound(run, since=9) == (None, []) and own_bound(run, since=5)[0].bits_per_dim == 5.0
    write("z", 4.5)
    others = ({"dtype": "bfloat16"}, {"variance": "small"}, {"calls": 10}, {"clip": False}, {"ema": 0.05}, {"num": 8})
    for number, other in enumerate(others):
        write(f"other-{number}", 5.4 - number, **other)
    (folder / "damaged.json").write_text("[1]")
    write("a", 4.9, num=300, weights="of another run")
    write("raw", 4.4, ema=False, num=300)
    bound, wrong = own_bound(run, since=5)
    assert bound.bits_per_dim == 4.5
    assert [text.split()[0] for text in wrong] == [str(folder / "a.json"), str(folder / "damaged.json")]
    for path in set(folder.iterdir()) - {folder / "raw.json"}:
        path.unlink()
    assert own_bound(run, since=9)[0].bits_per_dim == 4.4  # a run without an average has raw weights


pytest_plugins = ["spoiled"]
NOT_FINITE = [None, math.nan, math.inf, -math.inf]


@pytest.fixture(scope="module")
def facts(healthy):
    return gather(healthy, samples=False)


def with_values(facts, values, chosen=slice(10, 20)):
    lines = [dict(line) for line in facts.lines]
    for line in lines[chosen]:
        line.update(values)
    return examine(dataclasses.replace(facts, lines=tuple(lines))).findings


@pytest.mark.parametrize("value", NOT_FINITE, ids=lambda value: repr(value)[:8])
@pytest.mark.parametrize("key", ["loss", "mse"])
def test_losses_that_are_not_finite_are_passed_over(facts, key, value):
    found = {finding.check for finding in with_values(facts, {key: value})}
    assert found == ({"not-finite"} if key == "loss" else set())
    everywhere = {finding.check for finding in with_values(facts, {key: value}, slice(None))}
    assert everywhere == ({"not-finite"} if key == "loss" else set())
    assert with_values(facts, {}) == ()
    known = simulated(lines=tuple({**line, key: value} for line in metrics()), held_out=held_out())
    assert by_name(known).keys() == by_name(simulated(held_out=held_out())).keys()


@pytest.mark.parametrize("key", ["of_held_out", "of_train"])
def test_a_line_with_a_loss_that_is_not_finite_is_left_out(key):
    *early, last = held_out()
    for value in (math.nan, math.inf):
        known = simulated(held_out=(*early, {**last, key: [*last[key][1:], value]}))
        assert [it.step for it in known.measured] == list(MOMENTS[:-1])


@pytest.mark.parametrize("loss", [1e9, 1e30, 1e38])
@pytest.mark.parametrize("where", [slice(0, 3), slice(14, 16), slice(-8, None), slice(-1, None)])
def test_losses_beyond_all_measure_are_not_written_out(facts, loss, where):
    found = with_values(facts, {"loss": loss, "grad_norm": loss}, where)
    assert {finding.check for finding in found} <= {"not-finite", "loss-rises", "not-learned"}
    assert found or where != slice(-8, None)
    for finding in found:
        assert not re.search(r"\d{8}", finding.evidence), finding.evidence
        assert "1,000 times" in finding.evidence or finding.check != "loss-rises"
