"""Is a classifier trusted that knows nothing, and one that knows its classes?"""

import re
from fractions import Fraction
from math import comb

import pytest
import torch

from unstir.metrics.evaluation import describe_classifier
from unstir.metrics.features import SKILL, Trust
from unstir.significance import TAIL, binomial_tail


def exact(right, num, chance):
    p = Fraction(chance)
    return float(sum(comb(num, k) * p**k * (1 - p) ** (num - k) for k in range(right, num + 1)))


@pytest.mark.parametrize(
    ("right", "num", "chance"), [(0, 5, 0.1), (26, 299, 0.1), (50, 299, 0.1), (9, 10, 0.5), (7, 7, 0.25)]
)
def test_the_tail_is_that_of_the_binomial(right, num, chance):
    assert binomial_tail(right, num, chance) == pytest.approx(exact(right, num, chance), rel=1e-9)
    assert binomial_tail(right, num, 1.0) == 1.0 and binomial_tail(max(right, 1), num, 0.0) == 0.0


def test_guessing_is_trusted_no_more_often_than_promised():
    draw = torch.Generator().manual_seed(0)
    for num, chance in ((299, 0.1), (60, 0.3), (20, 0.5)):
        right = torch.binomial(torch.full((20_000,), float(num)), torch.full((20_000,), chance), generator=draw)
        counts = zip(*right.unique(return_counts=True), strict=True)
        above = sum(int(n) for k, n in counts if Trust(int(k), num, round(num * chance)).above_chance)
        assert above / 20_000 < 1.5 * TAIL


@pytest.mark.parametrize(
    ("right", "num", "most", "above", "given"),
    [
        (26, 299, 31, False, False),  # shuffled labels
        (290, 299, 31, True, True),
        (1150, 10_000, 1000, True, False),  # decidedly above chance, and of no use
        (3700, 10_000, 1000, True, True),  # of the 9,000 that chance gets wrong, 30%
        (3699, 10_000, 1000, True, False),
        (4, 4, 2, False, False),  # too few to tell
        (960, 1000, 960, False, False),  # always the most frequent class
        (985, 1000, 960, True, True),
        (0, 0, 0, False, False),  # nothing held out
    ],
)
def test_trust_takes_a_decided_and_a_large_skill(right, num, most, above, given):
    found = Trust(right, num, most)
    assert (found.above_chance, found.given) == (above, given)
    assert found.entry()["used"] is given and found.entry()["num"] == num
    assert SKILL == 0.3


def test_what_is_said_has_the_accuracy_chance_and_what_is_used_instead():
    good, lost, useless = Trust(290, 299, 31), Trust(26, 299, 31), Trust(1150, 10_000, 1000)
    for trust, networks, figures, instead in (
        (good, {"classifier": "c"}, ["97.0", "299", "10.4"], None),
        (lost, {}, ["8.7", "299", "10.4"], "sliced Wasserstein"),
        (lost, {"inception": "i"}, ["8.7", "299", "10.4"], "inception"),
        (useless, {}, ["11.5", "10000", "10.0"], "sliced Wasserstein"),
        (Trust(0, 0, 0), {}, [], "sliced Wasserstein"),
    ):
        text = describe_classifier({"classifier": trust.entry(), "networks": networks})
        assert re.findall(r"\d+\.\d|\d+", text.replace(",", "")) == figures, text
        assert ("instead" in text) == (instead is not None) and (instead or "") in text
    assert describe_classifier({"classifier": None, "networks": {}}) is describe_classifier({"networks": {}}) is None
