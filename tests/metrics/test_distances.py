"""Distances against computations that share nothing with them, known answers, and the libraries' own numbers."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import convolve
from scipy.stats import wasserstein_distance

from unstir import randomness
from unstir.data import Store
from unstir.metrics import distances
from unstir.metrics.distances import (
    Moments,
    frechet_of,
    halves,
    inception_score,
    infinite_fd,
    kid,
    moments,
    near,
    radii,
    standard_error,
)
from unstir.metrics.wasserstein import descriptors, pyramid, swd, wasserstein
from unstir.randomness import Key


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


@pytest.mark.slow
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


def generator(seed):
    return torch.Generator().manual_seed(seed)


def by_eigenvalues(a, b):
    """The textbook's form: the root's trace from the eigenvalues of C_a C_b, a product that is not symmetric."""
    values = torch.linalg.eigvals(a.covariance @ b.covariance)
    assert values.imag.abs().max() < 1e-9
    cross = values.real.clamp(min=0).sqrt().sum()
    return (((a.mean - b.mean) ** 2).sum() + (a.covariance + b.covariance).trace() - 2 * cross).item()


def test_moments_are_the_mean_and_the_unbiased_covariance():
    features = torch.randn(50, 6, generator=generator(0)) * 1e-3 + 1000  # float32, its mean far above its spread
    found = moments(features)
    assert found.n == 50 and found.mean.dtype == found.covariance.dtype == torch.float64
    rows = features.double().tolist()
    for i in range(6):
        assert found.mean[i].item() == pytest.approx(statistics.fmean(row[i] for row in rows), rel=1e-14)
        for j in range(6):
            expected = statistics.covariance([row[i] for row in rows], [row[j] for row in rows])
            assert found.covariance[i, j].item() == pytest.approx(expected, rel=1e-6, abs=1e-15)


def features(seed, n, size=24, decades=1.0, shift=0.0):
    """Gaussian features of deviations spread over decades, float64 [n, size]."""
    spread = torch.logspace(0, -decades, size, dtype=torch.float64)
    return (torch.randn(n, size, dtype=torch.float64, generator=generator(seed)) + shift) * spread


@pytest.mark.parametrize("n", [2, 10, 23, 24, 25, 60])
@pytest.mark.parametrize("num_reference", [12, 200])
def test_it_is_the_formula_by_eigenvalues_and_zero_to_itself(n, num_reference):
    given, reference = features(0, n, decades=3, shift=0.3), moments(features(1, num_reference, decades=3))
    # eigenvalues of a singular product that are zero come out as about 1e-17, whose roots the comparison adds up
    expected = by_eigenvalues(moments(given), reference)
    assert frechet_of(given, reference) == pytest.approx(expected, rel=1e-9 if n > 24 and num_reference > 24 else 1e-6)
    assert frechet_of(given.float(), reference) == pytest.approx(expected, rel=1e-5)
    assert frechet_of(3 * given, Moments(3 * reference.mean, 9 * reference.covariance, 2)) == pytest.approx(
        9 * frechet_of(given, reference), rel=1e-12
    )
    assert 0 <= frechet_of(given, moments(given)) < 1e-12


def test_known_distances():
    plain = torch.tensor([[1 + 2**0.5], [1 - 2**0.5]], dtype=torch.float64)  # of mean 1 and variance 4
    other = Moments(torch.tensor([3.0], dtype=torch.float64), torch.tensor([[9.0]], dtype=torch.float64), 2)
    assert frechet_of(plain, other) == pytest.approx(4 + 1, rel=1e-14)
    along = torch.tensor([[2**0.5, 0.0], [-(2**0.5), 0.0]], dtype=torch.float64)  # a line, and one across it
    across = Moments(torch.zeros(2, dtype=torch.float64), torch.diag(torch.tensor([0.0, 9.0])).double(), 2)
    assert frechet_of(along, across) == pytest.approx(4 + 9, rel=1e-14)


def test_the_root_of_a_singular_covariance_is_singular_too():
    few = moments(features(0, 9))
    torch.testing.assert_close(few.root @ few.root, few.covariance, rtol=0, atol=1e-14)
    values = torch.linalg.eigvalsh(few.root)
    assert values[:-8].abs().max() < 1e-14 < 1e-2 < values[-8]  # and not 1e-9, the roots of rounding errors


@pytest.mark.slow
@pytest.mark.parametrize("n", [500, 12])
def test_it_agrees_with_torch_fidelity_and_with_a_root_of_the_product(n):
    """12 features in 24 dimensions have a singular covariance, where the root of a product is right to 1e-8 alone."""
    pytest.importorskip("torch_fidelity", reason="pip install '.[fid]'")
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    a, b = features(0, n, shift=0.2), features(1, 700)
    found = frechet_of(a, moments(b))
    theirs = fid_statistics_to_metric(*map(fid_features_to_statistics, (a, b)), verbose=False)[KEY_METRIC_FID]
    assert found == pytest.approx(theirs, rel=1e-6 if n < 24 else 1e-10)
    covariances = [np.cov(x.numpy(), rowvar=False) for x in (a, b)]
    inner = sqrtm(covariances[1]) @ covariances[0] @ sqrtm(covariances[1])
    singular = n < 24  # where sqrtm warns, and eigenvalues do as well
    root = np.sqrt(np.clip(np.linalg.eigvalsh(inner), 0, None)).sum() if singular else np.trace(sqrtm(inner)).real
    shift = a.numpy().mean(0) - b.numpy().mean(0)
    expected = shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    assert found == pytest.approx(expected, rel=1e-6 if n < 24 else 1e-10)


@pytest.mark.parametrize("n", [21, 61])
def test_halves_are_distances_of_two_parts_that_make_the_whole(n, monkeypatch):
    given, reference = features(0, n), moments(features(1, 200))
    means, differences = halves(given, reference, repeats=3, seed=5)
    assert means.dtype == torch.float64 and means.shape == differences.shape == (3,)
    again = halves(given, reference, repeats=3, seed=5)
    assert torch.equal(again[0], means) and torch.equal(again[1], differences)
    assert len({*means.tolist(), *halves(given, reference, repeats=3, seed=6)[0].tolist()}) == 6
    monkeypatch.setattr(randomness, "permutation", lambda seed, stream, step, n: torch.arange(n))
    means, differences = halves(given, reference, repeats=2, seed=0)
    first, second = (frechet_of(part, reference) for part in (given[: n // 2], given[n // 2 :]))
    assert means.tolist() == pytest.approx([(first + second) / 2] * 2, rel=1e-6)
    assert differences.tolist() == pytest.approx([(first - second) / 2] * 2, rel=1e-5)


@pytest.mark.parametrize(("n", "shift"), [(100, 0.0), (100, 0.1), (100, 0.5), (24, 0.0), (24, 0.5)])
def test_the_standard_error_is_right_where_the_sets_are_alike_too(n, shift):
    spread = torch.logspace(0, -1, 24, dtype=torch.float64)
    reference = Moments(torch.zeros(24, dtype=torch.float64), torch.diag(spread**2), 10**9)
    sets = [features(seed, n, shift=shift) for seed in range(300)]
    deviation = statistics.stdev(frechet_of(each, reference) for each in sets)
    errors = [standard_error(each, reference, seed=seed) for seed, each in enumerate(sets[:60])]
    squared = statistics.fmean(error**2 for error in errors) ** 0.5
    assert squared == pytest.approx(deviation, rel=0.25)
    assert standard_error(sets[0], reference, seed=0) == errors[0] != standard_error(sets[0], reference, seed=1)


def noise(seed, *shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


def ones(n):
    return torch.ones(1, n, dtype=torch.float64)


def on_a_line(a, b):
    return wasserstein(a[:, None], b[:, None], ones(len(a)), ones(len(b))).item()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (30, 30), (30, 45), (31, 47)])
def test_it_is_scipys_for_any_numbers_ties_and_weights(n, m):
    a, b = (torch.randint(0, 20, (k, 3), generator=generator(k)).float() / 7 for k in (n, m + 100))
    b = b[:m]
    weights = [torch.stack([ones(k)[0], torch.bincount(torch.arange(k) // 3, minlength=k).double()]) for k in (n, m)]
    found = wasserstein(a, b, *weights)
    for row in range(2):
        of_a, of_b = (w[row].repeat_interleave(3).numpy() for w in weights)
        expected = wasserstein_distance(a.flatten().numpy(), b.flatten().numpy(), of_a, of_b)
        assert found[row].item() == pytest.approx(expected, abs=1e-7)
    assert on_a_line(a[:, 0], a[:, 0].flip(0)) == 0.0


@pytest.mark.parametrize(("height", "width"), [(32, 32), (14, 17), (28, 15)])
def test_the_pyramid_is_that_of_an_independent_convolution(height, width):
    image = torch.rand(1, 1, height, width, generator=generator(0)) * 255
    row = np.array([1, 4, 6, 4, 1]) / 16
    filter_ = np.outer(row, row)
    levels, rest = pyramid(image), image[0, 0].numpy().astype(float)
    for level in levels[:-1]:
        small = convolve(rest, filter_, mode="mirror")[::2, ::2]
        spread = np.zeros_like(rest)
        spread[::2, ::2] = small
        np.testing.assert_allclose(level[0, 0], rest - convolve(spread, 4 * filter_, mode="mirror"), atol=1e-3)
        rest = small
    np.testing.assert_allclose(levels[-1][0, 0], rest, atol=1e-3)
    flat = pyramid(torch.full((1, 1, height, width), 200.0))
    assert all(level.abs().max() < 1e-3 for level in flat[:-1]) and (flat[-1] - 200).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("height", "width", "sides"),
    [(8, 8, (8,)), (32, 32, (32, 16, 8)), (28, 28, (28, 14, 7)), (13, 64, (13, 7)), (12, 64, (12,)), (3, 5, (3,))],
)
def test_levels_are_halved_as_long_as_a_patch_fits(height, width, sides):
    assert [level.shape[2] for level in pyramid(noise(0, 4, 1, height, width).float())] == [*sides]
    found = descriptors(noise(0, 4, 1, height, width), patches=5)
    assert [tuple(level.shape[2:]) for level in found] == [(1, min(7, height), min(7, height))] * len(sides)


def test_small_images_give_every_patch_and_large_ones_the_same_places_in_any_set():
    small = noise(0, 3, 2, 8, 9)
    (found,) = descriptors(small, patches=6)
    assert torch.equal(found[1, 4], small[1, :, 1:8, 1:8].float())  # places run along rows: two rows of three
    assert len({tuple(patch.flatten().tolist()) for patch in found[0]}) == 6
    many = noise(1, 300, 1, 16, 16)  # more than are cut at once
    many[299] = many[43]  # the same place in its batch, another image: other places
    whole, part = descriptors(many, seed=3), descriptors(many[:270], seed=3)
    assert all(torch.equal(x[:270], y) for x, y in zip(whole, part, strict=True))
    assert not torch.equal(whole[0], descriptors(many, seed=4)[0]) and not torch.equal(whole[0][299], whole[0][43])
    level = pyramid(many.float())[0]
    places = level[299, 0].unfold(0, 7, 1).unfold(1, 7, 1).flatten(0, 1)
    index = [torch.nonzero((places - patch[0]).abs().amax((1, 2)) < 1e-3).item() for patch in whole[0][299]]
    assert len(set(index)) > 15 and min(index) < 20 and max(index) > 80  # all over the image


def test_all_together_is_a_plain_computation_by_scipy():
    a, b = noise(0, 20, 3, 8, 8), (noise(1, 30, 3, 8, 8) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]).byte()
    patches = [np.lib.stride_tricks.sliding_window_view(x.numpy().astype(float), (7, 7), (2, 3)) for x in (a, b)]
    patches = [x.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 3, 49) for x in patches]
    mean = (patches[0].mean((0, 2)) + patches[1].mean((0, 2))) / 2
    var = sum(((x - mean[:, None]) ** 2).mean((0, 2)) for x in patches) / 2  # about the common mean
    rows = [((x - mean[:, None]) / np.sqrt(var)[:, None]).reshape(len(x), -1) for x in patches]
    directions = randomness.normal(Key(5, "swd directions", 0, torch.arange(10)), (147,)).double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = statistics.fmean(wasserstein_distance(rows[0] @ d, rows[1] @ d) for d in directions)
    assert swd(a, b, seed=5, projections=10).mean == pytest.approx(1000 * expected, rel=1e-4)


def test_it_is_symmetric_and_zero_between_equals():
    a, b = noise(0, 40, 3, 32, 32), noise(1, 30, 3, 32, 32) // 2
    one, other = swd(a, b, projections=8), swd(b, a, projections=8)
    assert one.mean == pytest.approx(other.mean, rel=1e-5)
    assert swd(a, a, projections=8).mean == 0
    assert swd(a, b, projections=8) == one != swd(a, b, projections=8, seed=1)


def test_contrast_and_a_channel_that_is_constant_are_seen():
    a = noise(0, 50, 2, 8, 8)
    half = ((a.float() - 127.5) / 2 + 127.5).byte()
    assert swd(a, half).mean > 150  # sets scaled each by its own deviation would be about 0 apart
    blue, other = a.clone(), a.clone()
    blue[:, 1], other[:, 1] = 10, 10
    assert swd(blue, other).mean == 0
    other[:, 1] = 11
    assert 500 < swd(blue, other).mean <= 2000  # two constants are as different as distributions can be


def test_it_rises_with_noise_and_blur_from_a_floor_far_below_the_ceiling(digits):
    store = Store.open(digits)
    real, reference = store.images("train")[:290], store.images("held_out")[:290]
    floor, ceiling = swd(real, reference), swd(noise(0, *real.shape), reference)
    assert floor.mean < ceiling.mean / 8
    eps = torch.randn(real.shape, generator=generator(1))
    noised = [swd((real + s * eps).round().clamp(0, 255).byte(), reference).mean for s in (0, 20, 40, 80, 160)]
    assert noised == sorted(noised) and noised[-1] > 3 * noised[0]
    blurred, image = [], real.float()
    for _ in range(4):
        blurred.append(swd(image.round().byte(), reference).mean)
        image = 0.6 * image + 0.2 * image.roll(1, 3) + 0.2 * image.roll(-1, 3)
    assert blurred == sorted(blurred) and blurred[-1] > 2 * blurred[0]
    mixed = torch.cat((real[:145], noise(2, *real[:145].shape)))
    assert floor.mean < swd(mixed, reference).mean < ceiling.mean


def test_the_bootstrap_finds_the_deviation_between_independent_sets():
    def images(seed, low):  # brightness differs from image to image, so the patches of an image are much alike
        level = torch.randint(low, 150, (100, 1, 1, 1), generator=generator(seed))
        return (level + torch.randint(0, 50, (100, 1, 12, 12), generator=generator(seed + 1000))).byte()

    found = [swd(images(seed, 0), images(seed + 500, 60), projections=8, patches=8) for seed in range(50)]
    deviation = statistics.stdev(result.mean for result in found)
    assert statistics.fmean(result.standard_error for result in found) == pytest.approx(deviation, rel=0.3)
