"""The Fréchet distance against computations that share nothing with it."""

import statistics

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from unstir import randomness
from unstir.errors import UserError
from unstir.metrics.frechet import Moments, frechet, frechet_of, halves, moments, standard_error


def generator(seed):
    return torch.Generator().manual_seed(seed)


def gaussian(seed, size=24, rank=None, condition=3.0):
    """Moments with a mean and a covariance of the given rank, its eigenvalues spread over ``condition`` decades."""
    draw = generator(seed)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=draw))[0]
    values = 10 ** (-condition * torch.rand(size, dtype=torch.float64, generator=draw))
    values[rank if rank is not None else size :] = 0
    return Moments(torch.randn(size, dtype=torch.float64, generator=draw), (basis * values) @ basis.T, 1000)


def by_eigenvalues(a, b):
    """The textbook's form: the root's trace from the eigenvalues of C_a C_b, a product that is not symmetric."""
    values = torch.linalg.eigvals(a.covariance @ b.covariance)
    assert values.imag.abs().max() < 1e-9
    cross = values.real.clamp(min=0).sqrt().sum()
    return ((a.mean - b.mean) ** 2).sum() + (a.covariance + b.covariance).trace() - 2 * cross


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_formula_by_eigenvalues_and_symmetric(seed):
    a, b = gaussian(2 * seed), gaussian(2 * seed + 1)
    assert frechet(a, b) == pytest.approx(by_eigenvalues(a, b).item(), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)


def test_covariances_that_commute_have_a_closed_form():
    basis = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=generator(0)))[0]
    first, second = torch.rand(2, 12, dtype=torch.float64, generator=generator(1))
    first[:3], second[2:5] = 0, 0  # null spaces that overlap in part
    shift = torch.arange(12, dtype=torch.float64)
    a = Moments(shift, (basis * first) @ basis.T, 2)
    b = Moments(torch.zeros(12, dtype=torch.float64), (basis * second) @ basis.T, 2)
    expected = (shift**2).sum() + ((first.sqrt() - second.sqrt()) ** 2).sum()
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-10)
    plain = Moments(torch.tensor([1.0], dtype=torch.float64), torch.tensor([[4.0]], dtype=torch.float64), 2)
    other = Moments(torch.tensor([3.0], dtype=torch.float64), torch.tensor([[9.0]], dtype=torch.float64), 2)
    assert frechet(plain, other) == pytest.approx(4 + 1, rel=1e-14)


@pytest.mark.parametrize("rank", [0, 1, 5, 23, 24])
def test_the_distance_to_itself_is_zero_even_where_the_covariance_is_singular(rank):
    a = gaussian(rank, rank=rank)
    assert 0 <= frechet(a, a) < 1e-12


def test_singular_covariances_in_different_subspaces():
    a, b = gaussian(0, rank=7), gaussian(1, rank=11)
    # eigenvalues of the product that are zero come out as about 1e-17, whose roots the comparison adds up
    assert frechet(a, b) == pytest.approx(by_eigenvalues(a, b).item(), rel=1e-6)
    nothing = Moments(b.mean, torch.zeros_like(b.covariance), 2)
    assert frechet(b, nothing) == pytest.approx(b.covariance.trace().item(), rel=1e-12)
    apart = [torch.diag(torch.tensor(values, dtype=torch.float64)) for values in ([4.0, 0.0], [0.0, 9.0])]
    zero = torch.zeros(2, dtype=torch.float64)
    assert frechet(*(Moments(zero, covariance, 2) for covariance in apart)) == pytest.approx(13, rel=1e-14)


def test_it_is_a_squared_metric_and_scales_as_one():
    a, b, c = gaussian(0), gaussian(1), gaussian(2)
    assert frechet(a, c) ** 0.5 < frechet(a, b) ** 0.5 + frechet(b, c) ** 0.5
    scaled = [Moments(3 * m.mean, 9 * m.covariance, m.n) for m in (a, b)]
    assert frechet(*scaled) == pytest.approx(9 * frechet(a, b), rel=1e-12)


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
    for few in (0, 1):
        with pytest.raises(UserError, match="at least 2"):
            moments(features[:few])


def test_repeated_features_have_the_moments_of_the_features():
    features = torch.randn(40, 5, dtype=torch.float64, generator=generator(0))
    once, twice = moments(features), moments(torch.cat((features, features)))
    torch.testing.assert_close(twice.mean, once.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(twice.covariance * 79, once.covariance * 78)


def features(seed, n, size=24, decades=1.0, shift=0.0):
    """Gaussian features of deviations spread over decades, float64 [n, size]."""
    spread = torch.logspace(0, -decades, size, dtype=torch.float64)
    return (torch.randn(n, size, dtype=torch.float64, generator=generator(seed)) + shift) * spread


@pytest.mark.parametrize("n", [2, 10, 23, 24, 25, 60])
@pytest.mark.parametrize("num_reference", [12, 200])
def test_from_features_it_is_the_same_number(n, num_reference):
    given, reference = features(0, n, decades=3, shift=0.3), moments(features(1, num_reference, decades=3))
    expected = frechet(moments(given), reference)
    assert frechet_of(given, reference) == pytest.approx(expected, rel=1e-9)
    assert frechet_of(given.float(), reference) == pytest.approx(expected, rel=1e-5)
    assert 0 <= frechet_of(given, moments(given)) < 1e-12


def test_from_one_feature_there_is_no_distance():
    with pytest.raises(UserError, match="at least 2"):
        frechet_of(features(0, 1), moments(features(1, 9)))


def test_the_root_of_a_singular_covariance_is_singular_too():
    few = moments(features(0, 9))
    torch.testing.assert_close(few.root @ few.root, few.covariance, rtol=0, atol=1e-14)
    values = torch.linalg.eigvalsh(few.root)
    assert values[:-8].abs().max() < 1e-14 < 1e-2 < values[-8]  # and not 1e-9, the roots of rounding errors


@pytest.mark.parametrize("n", [500, 12])
def test_it_agrees_with_torch_fidelity_and_with_a_root_of_the_product(n):
    """12 features in 24 dimensions have a singular covariance, where the root of a product is right to 1e-8 alone."""
    pytest.importorskip("torch_fidelity", reason="pip install '.[fid]'")
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    a, b = features(0, n, shift=0.2), features(1, 700)
    found = frechet(moments(a), moments(b))
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
    first, second = (frechet(moments(part), reference) for part in (given[: n // 2], given[n // 2 :]))
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


def test_too_few_to_halve_are_refused():
    reference = moments(features(1, 50))
    assert standard_error(features(0, 4), reference) > 0
    with pytest.raises(UserError, match="at least 4"):
        standard_error(features(0, 3), reference)
    with pytest.raises(UserError, match="repeats=1"):
        standard_error(features(0, 9), reference, repeats=1)
