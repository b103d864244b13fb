"""Distances between features against computations written out, known answers, and torch-fidelity's own numbers."""

import itertools
import math
import statistics

import pytest
import torch

from unstir.metrics import distances
from unstir.metrics.distances import Moments, frechet_of, inception_score, infinite_fd, kid, moments, near, radii


def draw(seed, n, size=8, scale=1.0, shift=0.0):
    numbers = torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return numbers * scale + shift


def kernel(x, y):
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def mmd(a, b):
    """The unbiased squared maximum mean discrepancy, pair by pair."""
    a, b = a.tolist(), b.tolist()
    own = [statistics.fmean(kernel(x, y) for x, y in itertools.permutations(s, 2)) for s in (a, b)]
    return sum(own) - 2 * statistics.fmean(kernel(x, y) for x in a for y in b)


def test_kid_is_the_mean_discrepancy_of_pairs():
    a, b = draw(0, 12), draw(1, 12, scale=1.5, shift=0.4)
    mean, deviation = kid(a, b, subsets=3, subset_size=12)  # each subset is the whole, in another order
    assert mean == pytest.approx(mmd(a, b), rel=1e-10)
    assert deviation < 1e-10
    assert kid(b, a, subsets=3, subset_size=12)[0] == pytest.approx(mean, rel=1e-10)
    lone = [x for x, _ in (kid(a, b, subsets=1, subset_size=5, seed=seed) for seed in range(4))]
    assert len(set(lone)) == 4
    several, spread = kid(a, b, subsets=300, subset_size=5, seed=0)
    assert several == pytest.approx(mean, abs=4 * spread / 300**0.5) and spread > 0


def test_kid_of_equal_distributions_is_zero_in_the_mean_whatever_the_number():
    values = [kid(draw(2 * i, 10), draw(2 * i + 1, 10), subsets=1, subset_size=10)[0] for i in range(400)]
    assert min(values) < 0 < max(values)
    assert abs(statistics.fmean(values)) < 4 * statistics.stdev(values) / 20


def test_kid_and_the_inception_score_have_torch_fidelitys_subsets():
    pytest.importorskip("torch_fidelity", reason="pip install '.[fid]'")
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = draw(0, 40), draw(1, 60, shift=0.2)
    theirs = kid_features_to_metric(a, b, kid_subsets=7, kid_subset_size=20, verbose=False)
    assert kid(a, b, subsets=7, subset_size=20) == tuple(theirs.values())
    theirs = kid_features_to_metric(a, b, kid_subsets=7, kid_subset_size=20, rng_seed=2**32 - 1, verbose=False)
    assert kid(a, b, subsets=7, subset_size=20, seed=-1) == tuple(theirs.values())
    theirs = kid_features_to_metric(a, b, kid_subset_size=2, verbose=False)  # the least, of as many as by default
    assert kid(a, b, subset_size=2) == tuple(theirs.values())
    assert inception_score(a) == isc_features_to_metric(a)["inception_score_mean"]


def test_the_inception_score_of_known_logits():
    sure = torch.eye(6, dtype=torch.float64).repeat(5, 1) * 100  # each class five times, without a doubt
    assert inception_score(sure, splits=1) == pytest.approx(6, rel=1e-10)
    assert inception_score(sure[:1].repeat(30, 1), splits=3) == pytest.approx(1, rel=1e-10)
    assert inception_score(sure * 0) == pytest.approx(1, rel=1e-10)
    assert 1 < inception_score(sure / 100, splits=1) < 2
    logits = draw(0, 20, size=5, scale=2.0)
    share = logits.softmax(1)
    marginal = share.mean(0)
    gain = [sum(p * math.log(p / q) for p, q in zip(row, marginal.tolist(), strict=True)) for row in share.tolist()]
    assert inception_score(logits, splits=1) == pytest.approx(math.exp(statistics.fmean(gain)), rel=1e-10)
    assert inception_score(logits[:3]) == pytest.approx(1, rel=1e-10)  # three parts of one image


def neighbourhoods(real, fake):
    """Precision, recall, density and coverage."""
    return near(real, fake, radii(real))


def sizes(points, k):
    return [sorted(math.dist(x, y) for y in points)[k] for x in points]


def covered_by(points, balls, radius):
    """Of each point, how many balls hold it."""
    return [sum(math.dist(x, c) <= r for c, r in zip(balls, radius, strict=True)) for x in points]


@pytest.mark.parametrize("chunk", [1 << 25, 300])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.3), (2.0, 0.0)])
def test_neighbourhoods_are_those_of_every_pair(scale, shift, chunk, monkeypatch):
    monkeypatch.setattr(distances, "_CHUNK", chunk)
    real, fake = draw(0, 40, size=3), draw(1, 55, size=3, scale=scale, shift=shift)
    a, b = real.tolist(), fake.tolist()
    precision = statistics.fmean(n > 0 for n in covered_by(b, a, sizes(a, 3)))
    recall = statistics.fmean(n > 0 for n in covered_by(a, b, sizes(b, 3)))
    density = statistics.fmean(covered_by(b, a, sizes(a, 5))) / 5
    coverage = statistics.fmean(any(math.dist(x, y) <= r for y in b) for x, r in zip(a, sizes(a, 5), strict=True))
    found = neighbourhoods(real, fake)
    assert found == pytest.approx((precision, recall, density, coverage), abs=1e-12)
    assert distances.fidelity(real, fake, radii(real)).mean(1).tolist() == pytest.approx([precision, density])
    far = real.float() + 1000.0, fake.float() + 1000.0  # where x.x - 2 x.y + y.y would lose every digit
    assert neighbourhoods(*far)[2:] == pytest.approx((density, coverage), abs=0.02)


@pytest.mark.parametrize("size", [2, 16, 300])
def test_neighbours_themselves_lie_in_a_ball_whatever_the_rounding(size):
    real = draw(0, 120, size=size)
    turned, some, doubled = real.flip(0), real[:90], real[:20].repeat_interleave(6, 0)  # radii of `doubled` are 0
    assert neighbourhoods(real, turned) == neighbourhoods(doubled, doubled.flip(0)) == (1, 1, 1.2, 1)
    assert neighbourhoods(real, doubled)[1] == 20 / 120
    a, b = real.tolist(), some.tolist()
    density = statistics.fmean(covered_by(b, a, sizes(a, 5))) / 5
    assert neighbourhoods(real, some)[2] == pytest.approx(density, abs=1e-12)


def test_what_is_true_to_life_but_narrow_is_precise_and_what_is_broad_recalls():
    real = draw(0, 300, size=4)
    precision, recall, _, coverage = neighbourhoods(real, draw(1, 300, size=4, scale=0.3))
    assert precision > 0.95 and recall < 0.5 and coverage < 0.7
    precision, recall, density, _ = neighbourhoods(real, draw(1, 300, size=4, scale=3.0))
    assert precision < 0.5 and recall > 0.95 and density < 0.4


def test_of_equal_distributions_density_is_one_and_coverage_all_but_2_to_the_minus_k():
    found = [neighbourhoods(draw(2 * i, 400, size=4), draw(2 * i + 1, 400, size=4))[2:] for i in range(10)]
    density, coverage = (statistics.fmean(each) for each in zip(*found, strict=True))
    assert density == pytest.approx(1, abs=0.03) and coverage == pytest.approx(1 - 2**-5, abs=0.01)


SIZE = 16
SPREAD = torch.logspace(0, -1, SIZE, dtype=torch.float64)
EXACT = Moments(torch.zeros(SIZE, dtype=torch.float64), torch.diag(SPREAD**2), 10**9)


def sets(n, scale, shift, num):
    return [(draw(seed, n, SIZE, scale) + shift) * SPREAD for seed in range(num)]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "scale", "shift"), [(129, 1.0, 0.0), (129, 1.1, 0.1), (300, 1.0, 0.0), (129, 1.3, 0.5)])
def test_the_infinite_distance_is_the_true_one_with_the_error_stated(n, scale, shift):
    true = float(((1 - scale) ** 2 + shift**2) * (SPREAD**2).sum())
    given = sets(n, scale, shift, 300)
    found = [infinite_fd(each, EXACT, seed) for seed, each in enumerate(given)]
    values = [value for value, _ in found]
    deviation = statistics.stdev(values)
    bias = statistics.fmean(frechet_of(each, EXACT) for each in given) - true
    assert bias > 3 * deviation / 300**0.5
    assert statistics.fmean(values) == pytest.approx(true, abs=0.1 * bias + 4 * deviation / 300**0.5)
    stated = statistics.fmean(error**2 for _, error in found) ** 0.5
    assert stated == pytest.approx(deviation, rel=0.25)
    within = statistics.fmean(abs(value - statistics.fmean(values)) < 2 * error for value, error in found)
    assert within > 0.88  # 95 % of normal errors that are known


@pytest.mark.slow
def test_the_bias_of_a_finite_reference_stays():
    values = []
    for seed in range(60):
        reference = moments(draw(10_000 + seed, 150, SIZE) * SPREAD)
        values.append(infinite_fd(draw(seed, 150, SIZE) * SPREAD, reference, seed)[0])
    alone = statistics.fmean(frechet_of(draw(seed, 150, SIZE) * SPREAD, EXACT) for seed in range(60))
    assert statistics.fmean(values) == pytest.approx(alone, rel=0.15)


def test_the_line_is_straight_in_one_over_the_number(monkeypatch):
    """Of distances that are 2 + 30 / n exactly 30 / n is removed but for the bend, for an odd number of images too."""
    straight = lambda features, reference: 2 + 30 / len(features)
    monkeypatch.setattr(distances, "frechet_of", straight)
    monkeypatch.setattr("unstir.metrics.distances._quickly", straight)
    for n in (34, 35, 101):
        removed = 30 / n / (1 + 0.4 * SIZE / n)
        assert infinite_fd(draw(0, n, SIZE), EXACT)[0] == pytest.approx(2 + 30 / n - removed, rel=1e-12)


@pytest.mark.parametrize("n", [35, 75])
def test_the_infinite_distance_of_few_images_is_not_too_small(n):
    """Images of the reference's own distribution, at 2.2 and 4.7 images a feature: a line removes 24% and 10% more."""
    exact = Moments(torch.zeros(SIZE, dtype=torch.float64), torch.eye(SIZE, dtype=torch.float64), 10**9)
    given = [draw(seed, n, SIZE) for seed in range(60)]
    bias = statistics.fmean(frechet_of(each, exact) for each in given)
    left = statistics.fmean(infinite_fd(each, exact, seed)[0] for seed, each in enumerate(given))
    assert abs(left) < 0.06 * bias
