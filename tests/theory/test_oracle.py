"""What holds of every exact denoiser, beside what `unstir verify` (oracle-*, score-tweedie) shows; what all refuse."""

import math

import pytest
import torch
from exact import (
    ALL,
    SHAPE,
    close,
    every_data,
    every_time,
    finite,
    gaussian,
    rand,
    scales,
    some_x_t,
)

from unstir.theory.oracle import GaussianData, MixtureData


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


@every_data
def test_impossible_arguments_are_refused(data):
    x = rand(2, *SHAPE)
    for method in (data.estimate, data.spread, data.log_prob):
        for alpha, sigma in [(-0.1, 1.0), (1.1, 1.0), (0.5, -1.0), (0.0, 0.0), (math.nan, 1.0), (0.5, math.inf)]:
            with pytest.raises(ValueError, match="alpha="):
                method(x, alpha, sigma)
        for wrong in (x[0], x.transpose(1, 3), x.int(), torch.tensor(1.0)):
            with pytest.raises(ValueError, match=r"\[3, 2, 2\]"):
                method(wrong, 0.5, 0.5)


def test_data_without_a_density_say_so():
    x = rand(2, *SHAPE)
    with pytest.raises(ValueError, match="sigma=0.0"):
        gaussian(rank=4).log_prob(x, 1.0, 0.0)
    with pytest.raises(ValueError, match="sigma=0 "):
        finite().log_prob(x, 1.0, 0.0)
