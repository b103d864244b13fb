"""The exact denoisers against each other, and at the ends that `unstir verify` (oracle-*, score-tweedie) leaves out."""

import math

import pytest
import torch
from scipy.stats import binom
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
    """Samples of x_t, so that the posterior is not an extreme one."""
    noise, uniform = rand(B, *SHAPE, seed=6), torch.linspace(0.01, 0.97, B, dtype=torch.float64)
    given = {GaussianData: (noise,), MixtureData: (noise, uniform), FiniteData: (uniform,)}[type(data)]
    alpha, sigma = scales(t)
    return alpha * data.sample(*given) + sigma * rand(B, *SHAPE, seed=7)


ALL = [gaussian(), gaussian(8, rank=4), mixture(), finite()]
NAMES = ["gaussian", "singular", "mixture", "finite"]
every_data = pytest.mark.parametrize("data", ALL, ids=NAMES)
every_time = pytest.mark.parametrize("t", TIMES)


# Gaussian


@every_time
@pytest.mark.parametrize("s", [1, 0.5, 0.25])
def test_a_scalar_gaussian_has_the_known_noise_and_variance(t, s):
    m, (alpha, sigma) = 0.3, scales(t)
    data = GaussianData(m * ones(1, 1, 1), s**2 * ones(1, 1))
    x, v = rand(5, 1, 1, 1), alpha**2 * s**2 + sigma**2
    close((x - alpha * data.estimate(x, alpha, sigma)) / sigma, sigma * (x - alpha * m) / v, 4e-15 / sigma, scale=1)
    remaining = s**2 * sigma**2 / v
    assert data.conditional_covariance(alpha, sigma).item() == pytest.approx(remaining, rel=1e-14, abs=0)
    assert data.loss_floor(alpha, sigma) == pytest.approx(alpha**2 * s**2 / v, rel=1e-14, abs=0)
    close(data.spread(x, alpha, sigma), remaining * ones(5), 1e-14)


@pytest.mark.parametrize(("s", "floor"), [(1, 0.275513233), (0.5, 0.173053406), (0.25, 0.098639296)])
def test_the_loss_floor_of_a_scalar_gaussian_is_the_known_one(s, floor):
    data = GaussianData(0.3 * ones(1), s**2 * ones(1, 1))
    floors = [data.loss_floor(*scales(t)) for t in range(1, 1001)]
    assert sum(floors) / 1000 == pytest.approx(floor, abs=1e-9)


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


def test_gaussian_samples_have_the_mean_and_the_covariance():
    for data in (gaussian(), gaussian(rank=4)):
        root = (data.sample(eye(12).view(12, *SHAPE)) - data.mean).flatten(1)
        close(root @ root.T, data.covariance, 1e-13)
        close(root, root.T, 1e-14)
        assert (data.sample(torch.zeros(1, *SHAPE)) == data.mean.float()).all()


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
    with pytest.raises(ValueError, match=r"must be \[B, \*shape\] of a float dtype, where shape is \[\]"):
        data.estimate(x[0], 0.6, 0.8)


def test_a_point_mass_is_known_at_once():
    data = GaussianData(rand(*SHAPE), zeros(12, 12))
    x = rand(2, *SHAPE, seed=1)
    for sigma in (0.0, 0.3):
        assert (data.estimate(x, 0.9, sigma) == data.mean).all() and data.loss_floor(0.9, sigma) == 0
    assert (data.sample(x) == data.mean).all()


# Mixture


@every_time
def test_a_mixture_of_one_component_is_that_gaussian(t):
    one = gaussian()
    data = MixtureData(ones(1), one.mean[None], one.covariance[None])
    x, at = some_x_t(one, t), scales(t)
    close(data.estimate(x, *at), one.estimate(x, *at), 1e-15)
    close(data.log_prob(x, *at), one.log_prob(x, *at), 1e-15)
    close(data.spread(x, *at), one.spread(x, *at), 1e-15)
    assert (data.sample(x, torch.rand(len(x))) == one.sample(x)).all()


def test_a_mixture_draws_its_components_by_their_weights():
    weights, n = torch.tensor([0.0, 0.1, 0.6, 0.0, 0.3, 0.0], dtype=torch.float64), 20_000
    levels = torch.arange(6, dtype=torch.float64)
    data = MixtureData(weights, levels[:, None], zeros(6, 1, 1))
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0))
    drawn = data.sample(torch.zeros(n, 1), uniform)[:, 0]
    for level, weight in zip(levels, weights, strict=True):
        low, high = binom.interval(1 - 1e-6 / 3, n, weight.item()) if weight > 0 else (0, 0)
        assert low <= (drawn == level).sum().item() <= high
    edges = torch.tensor([0.0, 0.0999, 0.1001, 0.6999, 0.7001, 1.0])
    assert data.sample(torch.zeros(6, 1), edges)[:, 0].tolist() == [1, 1, 2, 2, 4, 4]


def test_a_mixture_sample_is_its_components_sample():
    data, noise = mixture(), rand(5, *SHAPE)
    drawn = data.sample(noise, torch.tensor([0.9, 0.1, 0.6, 0.3, 0.71]))
    for row, k in enumerate([2, 0, 1, 0, 2]):
        assert (drawn[row] == data.components[k].sample(noise)[row]).all()


def test_a_mixture_without_noise_needs_regular_covariances():
    full = torch.stack([covariance(2), covariance(3)])
    data = MixtureData(torch.tensor([0.5, 0.5], dtype=torch.float64), rand(2, *SHAPE), full)
    x = rand(3, *SHAPE, seed=1)
    close(data.estimate(0.5 * x, 0.5, 0.0), x, 1e-13)
    for method in (mixture().estimate, mixture().spread, mixture().log_prob):
        with pytest.raises(ValueError, match=r"sigma=0.0 as the covariance is singular; use sigma > 0"):
            method(x, 0.5, 0.0)


# Finite


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


@every_time
def test_the_size_of_a_chunk_changes_nothing(t):
    images, x = near_one_another(t)
    at = scales(t)
    for chunk in (1, 7, 20):
        one, other = FiniteData(images), FiniteData(images, chunk)
        close(other.estimate(x, *at), one.estimate(x, *at), 1e-12)
        close(other.spread(x, *at), one.spread(x, *at), 5e-10)
        close(other.log_prob(x, *at), one.log_prob(x, *at), 1e-11)


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
    # what the same sums give in float32: weights that are off by tenths
    flat, y = x.flatten(1), images.flatten(1)
    naive = ((alpha * flat @ y.T - alpha**2 / 2 * y.square().sum(1)) / sigma**2).softmax(1)
    assert (naive - weights).abs().max() > 0.1


def test_a_small_weight_counts_where_it_is_all_there_is():
    data = FiniteData(torch.tensor([[0.0], [8.0]], dtype=torch.float64))
    small = math.exp(-32)
    assert data.estimate(zeros(1, 1), 1.0, 1.0).item() == pytest.approx(8 * small / (1 + small), rel=1e-13, abs=0)


def test_the_spread_of_copies_is_not_negative():
    for seed in range(10):
        data = FiniteData(rand(1, *SHAPE, seed=seed).repeat(7, 1, 1, 1))
        spread = data.spread(rand(5, *SHAPE, seed=20), 0.8, 0.6)
        assert (spread >= 0).all() and (spread < 1e-15).all()


def test_finite_data_of_bytes_are_pixels_from_minus_one_to_one():
    pixels = torch.arange(256, dtype=torch.uint8).view(64, 1, 2, 2)
    as_bytes, as_floats = FiniteData(pixels), FiniteData(pixels.double() / 127.5 - 1)
    x = rand(3, 1, 2, 2)
    close(as_bytes.estimate(x, 0.8, 0.6), as_floats.estimate(x, 0.8, 0.6), 1e-15)
    ends = as_bytes.sample(torch.tensor([0.0, 1.0]))
    assert ends[0, 0, 0, 0] == -1 and ends[1, 0, 1, 1] == 1


def test_finite_data_draw_every_image_equally():
    data = finite()
    middles = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    assert (data.sample(middles) == data.images.repeat_interleave(3, 0)).all()
    assert (data.sample(torch.tensor([0.0, 1.0])) == data.images[[0, -1]].float()).all()


def test_what_is_not_a_number_stays_so():
    x = rand(2, *SHAPE)
    x[0] = math.nan
    for data, sigma in [*((data, 0.6) for data in ALL), (finite(), 0.0)]:
        estimate = data.estimate(x, 0.8, sigma)
        assert estimate[0].isnan().all() and estimate[1].isfinite().all()
        assert data.estimate(x[:1], 0.8, sigma).isnan().all()


# All of them


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


@every_data
def test_impossible_arguments_are_refused(data):
    x = rand(2, *SHAPE)
    for method in (data.estimate, data.spread, data.log_prob):
        for alpha, sigma in [(-0.1, 1.0), (1.1, 1.0), (0.5, -1.0), (0.0, 0.0), (math.nan, 1.0), (0.5, math.inf)]:
            with pytest.raises(ValueError, match=r"alpha=.* must be in \[0, 1\] and \[0, inf\), not both zero"):
                method(x, alpha, sigma)
        for wrong in (x[0], x.transpose(1, 3), x.int(), torch.tensor(1.0)):
            with pytest.raises(
                ValueError, match=r"must be \[B, \*shape\] of a float dtype, where shape is \[3, 2, 2\]"
            ):
                method(wrong, 0.5, 0.5)


def test_data_without_a_density_say_so():
    x = rand(2, *SHAPE)
    with pytest.raises(ValueError, match="no density at sigma=0.0 as the covariance is singular; use sigma > 0"):
        gaussian(rank=4).log_prob(x, 1.0, 0.0)
    with pytest.raises(ValueError, match="no density at sigma=0 as the data are points; use sigma > 0"):
        finite().log_prob(x, 1.0, 0.0)


@pytest.mark.parametrize("uniform", [[-0.1, 0.5], [0.5, 1.1], [math.nan, 0.5], [[0.5], [0.5]], [0, 1]])
def test_a_uniform_number_outside_its_range_is_refused(uniform):
    uniform = torch.tensor(uniform)
    for draw in (lambda: finite().sample(uniform), lambda: mixture().sample(rand(2, *SHAPE), uniform)):
        with pytest.raises(ValueError, match=r"uniform must be \[2\] of a float dtype in \[0, 1\], not torch"):
            draw()


def test_a_mixture_needs_a_uniform_number_for_each_image():
    with pytest.raises(ValueError, match=r"uniform must be \[2\]"):
        mixture().sample(rand(2, *SHAPE), torch.tensor([0.5]))


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (zeros(2).float(), eye(2), "mean must be float64 and finite, not torch.float32"),
        (zeros(2), eye(2).float(), "covariance must be float64 and finite, not torch.float32"),
        (math.nan * zeros(2), eye(2), "mean must be float64 and finite, .* with 2 elements that are not"),
        (zeros(2), math.inf * ones(2, 2), "covariance must be float64 and finite, .* with 4 elements"),
        (zeros(2, 2), eye(2), r"covariance be \[D, D\], not \[2, 2\] and \[2, 2\]"),
        (zeros(2), ones(2), r"covariance be \[D, D\], not \[2\] and \[2\]"),
        (zeros(0), zeros(0, 0), "mean must have D >= 1 elements"),
        (zeros(2), torch.tensor([[1.0, 0.5], [0.4, 1.0]]).double(), "symmetric, not 0.1 away from its transpose"),
        (zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double(), "semi-definite, not with an eigenvalue of -1"),
        (zeros(2), -eye(2), "semi-definite, not with an eigenvalue of -1"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianData(mean, covariance)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        (ones(2).float() / 2, zeros(2, 1), ones(2, 1, 1), "weights must be float64"),
        (ones(2) / 2, zeros(2, 1).float(), ones(2, 1, 1), "means must be float64"),
        (ones(2) / 2, zeros(2, 1), ones(2, 1, 1).float(), "covariances must be float64"),
        (ones(2, 1) / 2, zeros(2, 1), ones(2, 1, 1), r"must have one K, not \[\[2, 1\], \[2, 1\], \[2, 1, 1\]\]"),
        (ones(2) / 2, zeros(3, 1), ones(2, 1, 1), "must have one K"),
        (ones(2) / 2, zeros(2, 1), ones(3, 1, 1), "must have one K"),
        (ones(2) / 2, zeros(()), ones(2, 1, 1), "must have one K"),
        (ones(2), zeros(2, 1), ones(2, 1, 1), r"sum to 1; they are \[1.0, 1.0\], with sum 2"),
        (zeros(0), zeros(0, 1), zeros(0, 1, 1), "sum to 1"),
        (torch.tensor([1.5, -0.5]).double(), zeros(2, 1), ones(2, 1, 1), "weights must be >= 0"),
        (ones(2) / 2, zeros(2, 1), -ones(2, 1, 1), "semi-definite"),
        (ones(2) / 2, zeros(2, 2), ones(2, 1, 1), r"covariance be \[D, D\], not \[2\] and \[1, 1\]"),
    ],
)
def test_what_is_no_mixture_is_refused(weights, means, covariances, message):
    with pytest.raises(ValueError, match=message):
        MixtureData(weights, means, covariances)


@pytest.mark.parametrize(
    ("images", "chunk", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), 1, r"float dtype or uint8, .* not torch.int64 \[3, 2\]"),
        (torch.zeros(0, 2), 1, r"N >= 1, not torch.float32 \[0, 2\]"),
        (torch.zeros(3, 2), 0, "chunk=0 must be at least 1"),
    ],
)
def test_what_is_no_set_of_images_is_refused(images, chunk, message):
    with pytest.raises(ValueError, match=message):
        FiniteData(images, chunk)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_what_rounding_may_have_made_is_relative_to_the_covariance(size):
    exact = torch.eye(2).double()
    for off, words in (([[0.0, 0.0], [0.0, -1.0]], "semi-definite"), ([[0.0, 1.0], [0.0, 0.0]], "symmetric")):
        covariance = exact * torch.tensor([1.0, 0.0]) if words == "semi-definite" else exact
        within, beyond = (size * (covariance + share * 1e-12 * torch.tensor(off)) for share in (0.5, 1.5))
        assert (GaussianData(zeros(2), within)._spectrum[0] >= 0).all()
        with pytest.raises(ValueError, match=words):
            GaussianData(zeros(2), beyond)


def test_weights_sum_to_one_as_far_as_rounding_goes():
    for off, made in ((0.5e-12, True), (-0.5e-12, True), (1.5e-12, False), (-1.5e-12, False)):
        parts = torch.tensor([0.5, 0.5 + off], dtype=torch.float64), zeros(2, 2), eye(2).expand(2, 2, 2)
        if made:
            assert len(MixtureData(*parts).components) == 2
        else:
            with pytest.raises(ValueError, match="sum to 1"):
                MixtureData(*parts)
