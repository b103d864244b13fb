"""The exact denoiser of Gaussian data: against linear algebra, and without noise."""

import pytest
import torch
from exact import (
    SHAPE,
    close,
    every_time,
    eye,
    gaussian,
    ones,
    rand,
    scales,
    some_x_t,
    zeros,
)
from torch.distributions import MultivariateNormal

from unstir.theory.oracle import FiniteData, GaussianData


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
    with pytest.raises(ValueError, match=r"shape is \[\]"):
        data.estimate(x[0], 0.6, 0.8)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (zeros(2), torch.tensor([[1.0, 0.5], [0.4, 1.0]]).double(), "symmetric, not 0.1 away from its transpose"),
        (zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double(), "semi-definite, not with an eigenvalue of -1"),
        (zeros(2), -eye(2), "semi-definite, not with an eigenvalue of -1"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianData(mean, covariance)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_what_rounding_may_have_made_is_relative_to_the_covariance(size):
    exact = torch.eye(2).double()
    for off, words in (([[0.0, 0.0], [0.0, -1.0]], "semi-definite"), ([[0.0, 1.0], [0.0, 0.0]], "symmetric")):
        covariance = exact * torch.tensor([1.0, 0.0]) if words == "semi-definite" else exact
        within, beyond = (size * (covariance + share * 1e-12 * torch.tensor(off)) for share in (0.5, 1.5))
        GaussianData(zeros(2), within)
        with pytest.raises(ValueError, match=words):
            GaussianData(zeros(2), beyond)
