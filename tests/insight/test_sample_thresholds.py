"""Where each check of weights and samples begins to speak: at its threshold nothing is said, beyond it is."""

import math

import pytest
import torch
from invented import facts, said

from unstir.insight.facts import Errors, Samples


@pytest.mark.parametrize(
    ("times", "step", "expected"),
    [(1.05, 100, None), (1.1, 100, None), (1.2, 100, "warning"), (1.5, 100, "warning"), (1.6, 99, "warning"),
     (1.6, 100, "problem")],
)  # fmt: skip
def test_an_average_behind_its_weights(times, step, expected):
    raw = torch.tensor([10.0, 30.0] * 20, dtype=torch.float64)
    found = said("average-behind", facts(step=step), Errors(raw, raw * times))
    assert found == (expected and (expected, pytest.approx(times), 1.1))
    unsure = torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([0.2, 4.6], dtype=torch.float64)
    assert said("average-behind", facts(), Errors(*unsure)) is None
    for errors in (Errors(None, raw), Errors(raw, None)):
        assert said("average-behind", facts(), errors) is None
    assert said("average-behind", facts(), Errors(raw * 0, raw)) == ("problem", math.inf, 1.1)


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
