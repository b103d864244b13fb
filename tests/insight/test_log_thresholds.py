"""What each check of the log computes, and where it begins to speak."""

import pytest
from invented import STATS, facts, said

from unstir.insight import checks_learning as learning
from unstir.insight.doctor import CHECKS
from unstir.insight.numbers import LARGEST, is_number, logged_errors


def test_numbers_that_can_be_computed_with():
    assert is_number(1e60) and is_number(-1e60) and not is_number(1.5e60) and LARGEST == 1e60
    assert logged_errors([{"loss": 2.0}, {"mse": 1.0, "loss": 3.0}, {}]) == [2.0, 1.0]


@pytest.mark.parametrize(("rise", "expected"), [(1.149, None), (1.16, 1.16)])
def test_a_quarter_above_the_best_and_one_below_the_last(rise, expected):
    """Lines that do not scatter decide any rise; the first line is not settled."""

    def log(*quarters, step=100):
        losses = [9.0, *(loss for loss in quarters for _ in range(3))]
        lines = tuple({"step": step - 12 + place, "loss": loss} for place, loss in enumerate(losses))
        return facts(lines=lines), lines

    risen = said("loss-rises", *log(3.0, 3.0, 1.0, rise))
    assert risen == (expected and ("problem", pytest.approx(expected), 1.15))
    assert said("loss-rises", *log(3.0, 3.0, rise, 1.0)) is None
    falling = said("still-falling", *log(3.0, 3.0, rise, 1.0))
    assert falling == (expected and ("warning", pytest.approx(1 / expected), 1 / 1.15))
    assert said("still-falling", *log(3.0, 3.0, rise, 1.0, step=99)) is None
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
    [(2.6, 0.006, None), (2.7, 0.006, (1.35, 1.3)), (2.6, 0.0061, None), (2.7, 0.0061, (1.35, 1.3))],
)
def test_a_rate_too_high(peak, rate, expected, known):
    lines = tuple({"step": 100, "loss": loss} for loss in (peak, 0.9, 0.9, 0.9))
    found = said("learning-rate", facts(lines=lines, train__lr=rate), lines, STATS)
    assert found == (expected and ("problem", *map(pytest.approx, expected)))


@pytest.mark.parametrize(("clip", "named"), [(0.0, True), (0.5, False), (1.0, False), (1.1, True)])
def test_a_clip_is_advised_where_there_is_none(clip, named, known):
    lines = tuple({"step": 100, "loss": loss} for loss in (2.7, 0.9, 0.9, 0.9))
    (found,) = CHECKS["learning-rate"].find(facts(lines=lines, train__clip=clip), lines, STATS)
    assert ("train.clip=1" in found.remedy) is named
