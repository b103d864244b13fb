"""The exact denoiser of finitely many images: against brute force, at the ends, and at little noise."""

import math

import pytest
import torch
from exact import (
    SHAPE,
    close,
    every_time,
    finite,
    ones,
    rand,
    scales,
    zeros,
)

from unstir.theory.oracle import FiniteData, MixtureData


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
