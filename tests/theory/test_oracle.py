"""Exact denoisers by linear algebra and brute force, beside what `unstir verify` (oracle-*, score-tweedie) shows."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from unstir.theory.oracle import FiniteData, GaussianData, MixtureData
from unstir.theory.schedule import linear

LINEAR = linear()
SHAPE = (3, 2, 2)
TIMES = [1, 10, 500, 1000]


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def ones(*shape):
    return torch.ones(*shape, dtype=torch.float64)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def scales(t):
    return LINEAR.alpha(t), LINEAR.sigma(t)


def close(actual, expected, rel, scale=None):
    """Within ``rel`` of the largest number expected (or of ``scale``)."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    error, scale = (actual - expected).abs().max().item(), expected.abs().max().item() if scale is None else scale
    assert error <= rel * scale, f"off by {error:.3g}, {error / scale:.3g} of {scale:.3g}"


def covariance(seed, rank=12):
    factor = rand(12, rank, seed=seed) * torch.linspace(0.1, 1, rank, dtype=torch.float64)
    return factor @ factor.T


def gaussian(seed=1, rank=12):
    return GaussianData(rand(*SHAPE, seed=seed + 100), covariance(seed, rank))


def mixture():
    """A regular, a singular and a point component, near enough to one another to share x_t at every time."""
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    parts = torch.stack([0.05 * covariance(2), 0.02 * covariance(3, rank=5), zeros(12, 12)])
    return MixtureData(weights, 0.3 * rand(3, *SHAPE, seed=4), parts)


def finite(chunk=256):
    return FiniteData(rand(20, *SHAPE, seed=5), chunk)


def some_x_t(data, t, B=6):
    """Images of the data with noise, so that the posterior is not an extreme one."""
    alpha, sigma = scales(t)
    if isinstance(data, GaussianData):
        moved = rand(B, 12, seed=6) @ data.covariance / data.covariance.trace().sqrt()
        x_0 = data.mean + moved.view(B, *SHAPE)
    else:
        x_0 = data.images[:B] if isinstance(data, FiniteData) else data.means.repeat(2, 1, 1, 1)[:B]
    return alpha * x_0 + sigma * rand(B, *SHAPE, seed=7)


ALL = [gaussian(), gaussian(8, rank=4), mixture(), finite()]
NAMES = ["gaussian", "singular", "mixture", "finite"]
every_data = pytest.mark.parametrize("data", ALL, ids=NAMES)
every_time = pytest.mark.parametrize("t", TIMES)


def test_what_is_not_a_number_stays_so():
    x = rand(2, *SHAPE)
    x[0] = math.nan
    for data, sigma in [*((data, 0.6) for data in ALL), (finite(), 0.0)]:
        estimate = data.estimate(x, 0.8, sigma)
        assert estimate[0].isnan().all() and estimate[1].isfinite().all()
        assert data.estimate(x[:1], 0.8, sigma).isnan().all()


@every_data
@every_time
def test_the_spread_is_the_slope_of_the_estimate(data, t):
    # Cov[x_0 | x_t] = sigma^2 / alpha d E[x_0 | x_t] / d x_t
    x, (alpha, sigma) = some_x_t(data, t, B=2), scales(t)
    slope = torch.autograd.functional.jacobian(lambda z: data.estimate(z, alpha, sigma), x)
    traces = torch.stack([slope[b, :, :, :, b].reshape(12, 12).trace() for b in range(2)])
    spread = data.spread(x, alpha, sigma)
    close(spread, sigma**2 / alpha * traces / 12, 1e-12, scale=max(spread.max().item(), 1e-3))


@every_data
def test_without_signal_the_estimate_is_the_mean_of_the_data(data):
    x = rand(4, *SHAPE)
    if isinstance(data, GaussianData):
        mean = data.mean
    elif isinstance(data, MixtureData):
        mean = (data.weights.view(3, 1, 1, 1) * data.means).sum(0)
    else:
        mean = data.images.mean(0)
    for sigma in (1.0, 80.0):
        close(data.estimate(x, 0.0, sigma), mean.expand(x.shape), 1e-13)
        normal = torch.distributions.Normal(0, torch.tensor(sigma, dtype=torch.float64))
        close(data.log_prob(x, 0.0, sigma), normal.log_prob(x).flatten(1).sum(1), 1e-14)


@every_data
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_results_have_the_dtype_of_x_t_and_the_precision_of_float64(data, dtype):
    x, at = some_x_t(data, 10).to(dtype), scales(10)
    for method in (data.estimate, data.spread, data.log_prob):
        assert method(x, *at).dtype == dtype
        assert (method(x, *at) == method(x.double(), *at).to(dtype)).all()


@every_time
def test_a_singular_covariance_agrees_with_linear_algebra(t):
    data, (alpha, sigma) = gaussian(rank=4), scales(t)
    x, S = some_x_t(data, t), data.covariance
    of_x_t = alpha**2 * S + sigma**2 * eye(12)
    gain = alpha * torch.linalg.solve(of_x_t, S, left=False)
    centred = (x - alpha * data.mean).flatten(1)
    estimate = data.estimate(x, alpha, sigma)
    close(estimate, data.mean + (centred @ gain.T).view(x.shape), 1e-12)
    direct = MultivariateNormal(alpha * data.mean.flatten(), of_x_t).log_prob(x.flatten(1))
    close(data.log_prob(x, alpha, sigma), direct, 1e-12)
    remaining = data.conditional_covariance(alpha, sigma)
    close(remaining, S - alpha * gain @ S, 1e-14, scale=S.abs().max().item())
    close(data.spread(x, alpha, sigma), (remaining.trace() / 12).expand(len(x)), 1e-14)
    floor = (alpha / sigma) ** 2 * remaining.trace().item() / 12
    assert data.loss_floor(alpha, sigma) == pytest.approx(floor, rel=1e-13, abs=0)
    # the test sees an exchange of axes
    for permuted in (x.mT, x.flip(1), x.flip(3)):
        changed = data.estimate(permuted.contiguous(), alpha, sigma)
        assert all((undone - estimate).abs().max() > 1e-3 * alpha for undone in (changed.mT, changed.flip(1)))


def test_without_noise_a_gaussian_gives_back_what_may_be_data():
    data, singular, x = gaussian(), gaussian(rank=4), rand(6, *SHAPE)
    close(data.estimate(0.5 * x, 0.5, 0.0), x, 1e-13)
    assert data.loss_floor(0.5, 0.0) == 1 and singular.loss_floor(0.5, 0.0) == pytest.approx(4 / 12, rel=1e-15, abs=0)
    for each in (data, singular):
        assert (each.conditional_covariance(0.5, 0.0) == 0).all() and (each.spread(x, 0.5, 0.0) == 0).all()
        assert each.loss_floor(0.0, 1.0) == 0
    projected = singular.estimate(0.5 * x, 0.5, 0.0)
    close(projected, singular.estimate(0.5 * x, 0.5, 1e-7), 1e-11)
    close(singular.estimate(0.5 * projected, 0.5, 0.0), projected, 1e-13)
    density = MultivariateNormal(0.5 * data.mean.flatten(), 0.25 * data.covariance).log_prob(x.flatten(1))
    close(data.log_prob(x, 0.5, 0.0), density, 1e-11)


def test_an_image_may_be_one_number():
    data, x = GaussianData(torch.tensor(0.3, dtype=torch.float64), ones(1, 1)), rand(5)
    close(data.estimate(x, 0.6, 0.8), 0.3 + 0.6 * (x - 0.18), 1e-15)
    close(FiniteData(ones(4)).estimate(x, 0.6, 0.8), ones(5), 1e-15)


def test_a_mixture_without_noise_needs_regular_covariances():
    full = torch.stack([covariance(2), covariance(3)])
    data = MixtureData(torch.tensor([0.5, 0.5], dtype=torch.float64), rand(2, *SHAPE), full)
    x = rand(3, *SHAPE, seed=1)
    close(data.estimate(0.5 * x, 0.5, 0.0), x, 1e-13)


def brute_force(images, x, alpha, sigma):
    """Weights [B, N] and their mean, from the differences themselves."""
    squares = (x[:, None] - alpha * images).flatten(2).square().sum(2)
    weights = (-squares / (2 * sigma**2)).softmax(1)
    return weights, torch.einsum("bn,n...->b...", weights, images)


def near_one_another(t):
    """Images whose distances are those of x_t's noise, so that at time t several have weight; and x_t."""
    alpha, sigma = scales(t)
    images = rand(1, *SHAPE) + 0.5 * sigma / alpha * rand(20, *SHAPE, seed=1)
    return images, alpha * images[:6] + sigma * rand(6, *SHAPE, seed=2)


@every_time
def test_finite_data_equal_brute_force_and_a_mixture_of_points(t):
    images, x = near_one_another(t)
    data, (alpha, sigma) = FiniteData(images), scales(t)
    weights, mean = brute_force(images, x, alpha, sigma)
    assert weights.max() < 0.99
    # an exponent is right to some 1e-16 of ||x||^2 / sigma^2; so are the weights, which share out the images' distance
    error = 5e-16 * x.flatten(1).square().sum(1).max().item() / sigma**2 + 1e-15
    distance, size = (images - images[0]).abs().max().item(), images.abs().max().item()
    of_mean = error * distance + 1e-15 * size
    points = MixtureData(ones(20) / 20, images, zeros(20, 12, 12))
    close(data.estimate(x, alpha, sigma), mean, of_mean, scale=1)
    close(data.estimate(x, alpha, sigma), points.estimate(x, alpha, sigma), of_mean, scale=1)
    close(data.log_prob(x, alpha, sigma), points.log_prob(x, alpha, sigma), 10 * error, scale=1)
    close(data.spread(x, alpha, sigma), points.spread(x, alpha, sigma), error * distance**2 + 1e-15 * size**2, scale=1)


def test_finite_data_at_the_ends_are_the_nearest_image_and_the_mean():
    data = finite()
    x = 0.9 * data.images[3:6] + 0.05 * rand(3, *SHAPE)
    for sigma in (0.0, 1e-3):
        assert (data.estimate(x, 0.9, sigma) == data.images[3:6]).all()
        assert (data.spread(x, 0.9, sigma) < 1e-15).all()
    close(data.estimate(x, 0.0, 1.0), data.images.mean(0).expand(3, *SHAPE), 1e-15)
    variance = data.images.var(0, correction=0).mean()
    close(data.spread(x, 0.0, 1.0), variance.expand(3), 1e-14)


def test_finite_data_without_noise_average_what_ties():
    data = FiniteData(torch.tensor([[2.0], [-1.0], [1.0]]))
    assert data.estimate(torch.tensor([[0.0], [0.1]]), 0.5, 0.0).tolist() == [[0.0], [1.0]]


def test_float32_images_are_told_apart_at_little_noise():
    alpha, sigma = scales(1)
    assert sigma == pytest.approx(0.01)
    base = rand(1, 3, 32, 32, dtype=torch.float32).clamp(-1, 1)
    images = base + 2 * sigma / math.sqrt(3072) * rand(8, 3, 32, 32, seed=1, dtype=torch.float32)
    x = alpha * images[:4] + sigma * rand(4, 3, 32, 32, seed=2, dtype=torch.float32)
    weights, mean = brute_force(images.double(), x.double(), alpha, sigma)
    assert weights.max() < 0.99 and weights.max(1).values.min() < 0.8
    data = FiniteData(images, chunk=3)
    close(data.estimate(x.double(), alpha, sigma), mean, 1e-11)
    estimate = data.estimate(x, alpha, sigma)
    assert estimate.dtype == torch.float32 and (estimate == mean.float()).float().mean() > 0.999


def test_a_small_weight_counts_where_it_is_all_there_is():
    data = FiniteData(torch.tensor([[0.0], [8.0]], dtype=torch.float64))
    small = math.exp(-32)
    assert data.estimate(zeros(1, 1), 1.0, 1.0).item() == pytest.approx(8 * small / (1 + small), rel=1e-13, abs=0)


def test_the_spread_of_copies_is_not_negative():
    for seed in range(10):
        data = FiniteData(rand(1, *SHAPE, seed=seed).repeat(7, 1, 1, 1))
        spread = data.spread(rand(5, *SHAPE, seed=20), 0.8, 0.6)
        assert (spread >= 0).all() and (spread < 1e-15).all()
