"""What each check of the log computes, and where it begins to speak."""

import math

import pytest
from invented import STATS, facts, said

from unstir.insight import checks_learning as learning
from unstir.insight.checks_learning import _logs, _quarters, _rise, _scatter, settled
from unstir.insight.doctor import CHECKS
from unstir.insight.numbers import LARGEST, is_number, logged_errors, times
from unstir.significance import Estimate


def log(logs, first=1, **values):
    """Lines of losses with these logarithms, a step each."""
    return tuple({"step": first + i, "loss": math.exp(each), **values} for i, each in enumerate(logs))


def of(logs, settings=None, **changes):
    """What is said of a log by a check, the settings of the run being these."""
    lines = log(logs, **changes)
    return facts(lines=lines, **(settings or {})), lines


def test_numbers_that_can_be_computed_with():
    assert is_number(1e60) and is_number(-1e60) and not is_number(1.5e60) and LARGEST == 1e60
    assert times(9.99) == "9.99 times" and times(10.0) == "10 times" and times(1000.5) == "more than 1,000 times"
    assert logged_errors([{"loss": 2.0}, {"mse": 1.0, "loss": 3.0}, {}]) == [2.0, 1.0]


def test_a_log_is_settled_a_line_after_the_warm_up():
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}, {"step": 3}, {"step": 4, "loss": 1.0}]
    lines += [{"step": 5, "loss": None}, {"step": 6, "loss": 1.0}, {"step": 7, "loss": 2.0}]
    assert [line["step"] for line in settled(facts(lines=tuple(lines), train__warmup="2 steps"))] == [6, 7]
    eight = list(log(range(8)))
    assert _logs(eight) == list(range(8)) and _logs(eight[:7]) == _logs([*eight, {"loss": 0.0}]) == []


def test_quarters_have_the_median_and_its_error_for_normal_noise():
    assert _scatter([0.0, 1.0, 0.0, 1.0]) == pytest.approx(1.4826 / math.sqrt(2), rel=1e-12)
    logs = [9.0, 9.0, 0.0, 1.0, 2.0, 4.0, 3.0, 3.0, 5.0, 6.0, 7.0, 8.0, 8.0, 9.0]  # the first is not settled
    found = _quarters(of(logs)[0])  # of thirteen lines the last twelve
    error = 1.25 * 1.4826 / math.sqrt(2) / math.sqrt(3)
    assert [each.value for each in found] == pytest.approx([1, 3, 6, 8], abs=1e-12)
    assert [each.error for each in found] == pytest.approx([error] * 4, rel=1e-9) and {each.df for each in found} == {3}
    assert _quarters(of(logs[:8])[0]) == []


def test_a_rise_is_decided_or_of_lines_that_do_not_scatter():
    sure = lambda value, error=1.0: Estimate(value, error, math.inf)
    assert _rise(sure(0, 0.0), sure(3.51)) == 3.51 and _rise(sure(0, 0.0), sure(3.49)) == 0
    assert _rise(sure(0, 0.0), sure(0.1, 0.0)) == 0.1 and _rise(sure(0, 0.0), sure(3.7), choices=3) == 0


@pytest.mark.parametrize(
    ("last", "error", "expected"),
    [(math.log(1.15), 0.0, None), (math.log(1.16), 0.0, 1.16), (3.81, 1.0, math.exp(3.81)), (3.79, 1.0, None)],
)
def test_a_quarter_above_the_best_and_one_below_the_last(last, error, expected, monkeypatch):
    assert said("loss-rises", *of([0.0])) is said("still-falling", *of([0.0], first=100)) is None
    quarters = [Estimate(value, 0.0, math.inf) for value in (5.0, 5.0, 0.0)] + [Estimate(last, error, math.inf)]
    monkeypatch.setattr(learning, "_quarters", lambda facts: quarters)  # the best is one of three
    assert said("loss-rises", *of([0.0])) == (expected and ("problem", pytest.approx(expected), 1.15))
    monkeypatch.setattr(learning, "_quarters", lambda facts: [*quarters[:2], quarters[3], quarters[2]])
    if not error:
        found = said("still-falling", facts(), ())
        assert found == (expected and ("warning", pytest.approx(1 / expected), 1 / 1.15))
    assert said("still-falling", facts(step=99), ()) is None


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
        ([0.9, 0.4, 0.5, 0.6], 100, None),
        ([0.1, 0.4, 0.5, 0.9], 100, 0.6),
        ([0.9] * 4, 2000, 0.9),
        ([0.9] * 4, 1999, None),
        ([], 2000, None),
    ],
)
def test_nothing_was_learned_by_the_last_three_lines(losses, steps, expected, known):
    length = "100 steps" if steps == 100 else "5000 steps"  # of ten images each: 20,000 are enough
    lines = tuple({"step": steps, "loss": loss} for loss in losses)
    of_run = facts(lines=lines, train__length=length)
    found = said("not-learned", of_run, lines, STATS)
    assert found == (expected and ("problem", pytest.approx(expected), 0.5))


@pytest.mark.parametrize(
    ("peak", "rate", "expected"),
    [(2.6, 0.006, None), (2.7, 0.006, (1.35, 1.3)), (2.6, 0.0061, (0.0061, 0.006)), (2.7, 0.0061, (1.35, 1.3))],
)
def test_a_rate_too_high(peak, rate, expected, known):
    lines = tuple({"step": 100, "loss": loss} for loss in (peak, 0.9, 0.9, 0.9))
    found = said("learning-rate", facts(lines=lines, train__lr=rate), lines, STATS)
    assert found == (expected and ("problem", *map(pytest.approx, expected)))


@pytest.mark.parametrize(("clip", "named"), [(0.0, True), (0.5, False), (1.0, False), (1.1, True)])
def test_a_clip_is_advised_where_there_is_none(clip, named, known):
    lines = tuple({"step": 100, "loss": loss} for loss in (2.7, 0.9, 0.9, 0.9))
    (found,) = CHECKS["learning-rate"].find(facts(lines=lines, train__clip=clip), lines, STATS)
    assert ("--train.clip 1" in found.remedy) is named
