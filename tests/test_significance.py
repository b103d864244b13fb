"""The tests behind the analysis against scipy, closed forms and simulations of what they promise."""

import itertools
import math
import random
import statistics

import pytest
import torch
from scipy import stats

from unstir.significance import (
    LEVEL,
    TAIL,
    Effect,
    Estimate,
    decimals,
    deviate,
    difference,
    effect,
    exact,
    largest_of,
    mann_whitney,
    mean_of,
    paired,
    precedence,
    precedence_p,
    two_sample,
    widening,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, num, mean=0.0, spread=1.0):
    draw = random.Random(seed)
    return [draw.gauss(mean, spread) for _ in range(num)]


@pytest.mark.parametrize("df", [2, 3, 5, 10, 30, 300])
@pytest.mark.parametrize("t", [0.5, 1.0, 2.0, 3.0, 5.0, 10.0, -4.0])
def test_a_students_t_becomes_the_normal_with_its_tail(df, t):
    exact = math.copysign(stats.norm.isf(stats.t.sf(abs(t), df)), t)
    assert deviate(t, df) == pytest.approx(exact, abs=0.03, rel={2: 0.04, 3: 0.02}.get(df, 0.012))
    if abs(exact) > 3:
        assert abs(deviate(t, df)) <= abs(exact) + 1e-3  # on the safe side where sentences are decided
    assert deviate(t, math.inf) == t


@pytest.mark.parametrize("df", [1, 2, 5, 19, 127, math.inf])
def test_an_effect_is_decided_beyond_the_level_in_its_widened_errors(df):
    exact = stats.t.isf(stats.norm.sf(LEVEL), df) / LEVEL if df < math.inf else 1.0
    assert 0.999 * exact <= widening(df) <= {1: 8, 2: 1.5}.get(df, 1.03) * exact
    needed = LEVEL * effect(1.0, 0.1, df).error
    assert effect(needed * 1.001, 0.1, df).decided
    assert not effect(needed * 0.999, 0.1, df).decided


def test_two_samples_are_scipys_welch():
    a, b = normal(0, 12, 1.0, 2.0), normal(1, 40, 2.0, 0.5)
    ours, theirs = two_sample(a, b), stats.ttest_ind(b, a, equal_var=False)
    assert ours.z == pytest.approx(deviate(theirs.statistic, theirs.df), rel=1e-9)
    exact = stats.norm.isf(theirs.pvalue / 2) * math.copysign(1, theirs.statistic)
    assert ours.z == pytest.approx(exact, abs=0.02)


def test_pairs_are_scipys_and_see_what_two_samples_cannot():
    hard = normal(0, 100, 1.0, 0.3)
    after = [h - 0.01 + e for h, e in zip(hard, normal(1, 100, 0.0, 0.01), strict=True)]
    ours, theirs = paired(hard, after), stats.ttest_rel(after, hard)
    assert ours.z == pytest.approx(deviate(theirs.statistic, 99), rel=1e-9)
    assert ours.decided and ours.value < 0
    assert not two_sample(hard, after).decided


def test_without_a_known_error_nothing_is_decided():
    for value, error in ((1.0, 0.0), (1.0, math.nan), (math.nan, 1.0), (math.inf, 1.0), (1.0, math.inf)):
        assert not effect(value, error, 10).decided
    assert not difference(Estimate(1.0, math.nan, 1.0), Estimate(2.0, 0.1, math.inf)).decided


def test_an_exact_tail_is_decided_where_its_deviate_is():
    assert pytest.approx(stats.norm.sf(LEVEL), rel=1e-12) == TAIL
    assert exact(3.0, TAIL * 0.99).positive and not exact(3.0, TAIL * 1.01).decided
    assert not exact(3.0, TAIL * 0.99, choices=2).decided
    found = exact(3.0, 1e-6)
    assert found.z == pytest.approx(stats.norm.isf(1e-6)) and found.error == pytest.approx(3.0 / found.z)
    assert exact(3.0, 0.0).decided and not exact(-3.0, 1.0).decided


@pytest.mark.parametrize("choices", [1, 2, 8, 40])
@pytest.mark.parametrize("z", [1.0, 3.0, 4.0, 6.0, -5.0])
def test_the_largest_of_several_is_held_to_bonferronis_bound(choices, z):
    ours = largest_of(choices, z)
    tail = min(choices * stats.norm.sf(abs(z)), 0.5)
    assert abs(ours) <= stats.norm.isf(tail) + 1e-9
    assert abs(ours) >= stats.norm.isf(tail) - 0.5 or abs(z) < 3
    assert ours == 0 or math.copysign(1, ours) == math.copysign(1, z)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (35, 200), (300, 41)])
@pytest.mark.parametrize("values", [3, 50, 10**9])
def test_mann_whitney_is_scipys_with_ties_and_without(n, m, values):
    a, b = (torch.randint(0, values, (k,), generator=generator(k + 1)).double() for k in (n, m))
    b = b + values // 10
    for x, y in ((a, b), (b, a)):
        found = mann_whitney(x, y)
        expected = stats.mannwhitneyu(x.numpy(), y.numpy(), alternative="less", method="asymptotic")
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert found.probability == pytest.approx(1 - expected.statistic / (n * m), rel=1e-12)
    assert mann_whitney(torch.ones(20), torch.ones(30)).p == 1.0


def test_the_standard_error_is_the_deviation_between_independent_sets():
    draw = lambda seed: (
        torch.randn(60, generator=generator(seed)),
        0.7 + 3 * torch.randn(25, generator=generator(seed + 9999)),
    )
    found = [mann_whitney(*draw(seed)) for seed in range(400)]
    deviation = statistics.stdev(result.probability for result in found)
    assert statistics.fmean(result.standard_error for result in found) == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize(("n", "m", "j"), [(4, 5, 1), (5, 4, 2), (3, 6, 6), (6, 2, 1)])
def test_the_chance_of_copies_is_that_of_counting_all_orders(n, m, j):
    orders = [set(places) for places in itertools.combinations(range(n + m), n)]  # the ranks of a
    for count in range(n + 1):
        held_out = [[rank for rank in range(n + m) if rank not in places][j - 1] for places in orders]
        many = sum(sum(r < last for r in places) >= count for places, last in zip(orders, held_out, strict=True))
        assert precedence_p(count, n, m, j) == pytest.approx(many / len(orders), rel=1e-14)


def test_copies_are_counted_below_the_smallest_thousandth():
    b = torch.arange(1, 2001, dtype=torch.float64).flip(0)
    a = torch.cat((torch.full((7,), 2.5), torch.full((5,), 3.0), torch.full((88,), 500.0)))
    found = precedence(a.double(), b, 0.01)
    assert (found.count, found.threshold) == (7, 3.0)  # j = 3; equals are not below
    assert found.expected == pytest.approx(3 * 100 / 2001)
    assert found.p == precedence_p(7, 100, 2000, 3) < 1e-6
    assert precedence_p(found.least, 100, 2000, 3) <= 0.01 < precedence_p(found.least - 1, 100, 2000, 3)
    assert precedence(a.double(), b, 0.01, 2.5).count == 0 and precedence(a.double(), b, 0.01, 2.6).count == 7
    assert precedence(torch.zeros(3).double(), torch.ones(20).double(), 1e-9).least is None
    mean = statistics.fmean(
        precedence(torch.rand(30, generator=generator(s)), torch.rand(50, generator=generator(-s - 1)), 0.01).count
        for s in range(2000)
    )
    assert mean == pytest.approx(30 / 51, rel=0.15)


def test_an_effect_at_the_level_is_undecided_and_one_of_0_has_no_sign():
    at = lambda z, value=1.0: Effect(value=value, error=0.5, z=z)
    assert not at(3.5).decided and not at(-3.5).decided and at(3.51).positive and at(-3.51, -1.0).negative
    assert not at(9.0, -1.0).positive and not at(9.0).negative and at(1.0).errors == 2


def test_deviates_by_their_formulas():
    assert deviate(3.0, 5) == pytest.approx(41 / 43 * math.sqrt(5 * math.log(1 + 9 / 5)), rel=1e-14)
    for df in (1, 2, 5, 300):
        assert deviate(LEVEL * widening(df), df) == pytest.approx(LEVEL, rel=1e-12)
    assert largest_of(3, 4.0) == pytest.approx(math.sqrt(16 - 2 * math.log(3)), rel=1e-14) and largest_of(9, 1.0) == 0
    assert exact(3.0, 0.0).z == exact(3.0, 1e-300).z > 37
    assert (exact(3.0, 0.5).z, exact(3.0, 0.5).error, exact(3.0, 0.9).z) == (0, 0, 0)


def test_means_by_hand():
    assert mean_of([1.0, 2.0, 3.0]) == (2, pytest.approx(3**-0.5), 2) and mean_of([1.0, 3.0]) == (2, 1, 1)
    assert mean_of([7.0])[::2] == (7, 1)
    assert math.isnan(mean_of([7.0]).error) and math.isnan(mean_of([1.0, math.inf]).error)
    known = difference(Estimate(1.0, 3.0, math.inf), Estimate(3.0, 4.0, math.inf))
    assert (known.value, known.error, known.z) == (2, 5, 0.4)


def test_sets_that_do_not_overlap_have_no_error_and_of_three_a_least_count():
    low, high = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 4.0, 5.0]).double()
    found = mann_whitney(low, high)
    assert (found.probability, found.standard_error) == (1, 0)
    # n m = 6, half of which is expected: 6 - 3 - 1/2 over sqrt(6 / 12 * 6)
    assert found.p == pytest.approx(stats.norm.sf(2.5 / math.sqrt(3)), rel=1e-12)
    rank = lambda m: precedence(torch.zeros(3).double(), torch.arange(1, m + 1).double(), 0.5).threshold
    assert (rank(999), rank(1000), rank(1999), rank(2000)) == (1, 2, 2, 3)
    sure = precedence(torch.zeros(3).double(), torch.ones(3).double(), precedence_p(2, 3, 3, 1))
    assert (sure.count, sure.least, sure.expected) == (3, 2, 3 / 4)
    assert precedence(torch.zeros(3).double(), torch.ones(3).double(), precedence_p(3, 3, 3, 1)).least == 3


@pytest.mark.parametrize(
    ("error", "places"),
    [(0.56, 1), (0.2, 1), (0.194, 2), (0.1996, 1), (0.0999, 2), (1.0, 1), (2.0, 0), (15.0, 0), (30.0, -1)],
)
def test_an_error_has_one_digit_and_two_where_it_begins_with_1(error, places):
    assert decimals(error) == places
