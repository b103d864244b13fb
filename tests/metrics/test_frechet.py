"""The Fréchet distance against computations that share nothing with it."""

import statistics

import pytest
import torch

from unstir.errors import UserError
from unstir.metrics.frechet import Moments, bootstrap, frechet, moments


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
        with pytest.raises(UserError, match=f"asked for {few} images; give at least 2"):
            moments(features[:few])


def test_repeated_features_have_the_moments_of_the_features():
    features = torch.randn(40, 5, dtype=torch.float64, generator=generator(0))
    once, twice = moments(features), moments(torch.cat((features, features)))
    torch.testing.assert_close(twice.mean, once.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(twice.covariance * 79, once.covariance * 78)


@pytest.mark.parametrize("shift", [0.3, 1.0])
def test_the_bootstrap_finds_the_deviation_between_independent_sets(shift):
    spread = torch.randn(8, 8, dtype=torch.float64, generator=generator(0)) / 3
    reference = Moments(torch.zeros(8, dtype=torch.float64), spread @ spread.T, 10**9)
    draw = lambda seed: torch.randn(200, 8, dtype=torch.float64, generator=generator(seed)) @ spread.T + shift
    deviation = statistics.stdev(frechet(moments(draw(seed)), reference) for seed in range(200))
    errors = [bootstrap(draw(seed), reference, seed=seed) for seed in range(20)]
    assert statistics.fmean(errors) == pytest.approx(deviation, rel=0.25)
    assert bootstrap(draw(0), reference, seed=0) == errors[0] != bootstrap(draw(0), reference, seed=1)
