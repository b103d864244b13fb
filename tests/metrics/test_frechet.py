"""The Fréchet distance against computations that share nothing with it."""

import statistics

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from unstir import randomness
from unstir.metrics.distances import Moments, frechet_of, halves, moments, standard_error


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
