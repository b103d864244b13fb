"""Data whose exact denoiser is known, small and in float64, and samples of their x_t."""

import pytest
import torch

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
