"""Gaussian data, for which every expectation is exact: ideal denoisers, quadrature nodes, samplers as affine maps."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from unstir import randomness
from unstir.diffusion.denoiser import Denoise, Prediction, at_each_time
from unstir.diffusion.samplers.step import Step
from unstir.randomness import Key
from unstir.theory.process import Process
from unstir.verify.exact import Table

M = 0.3
"""The mean of the scalar data of most checks."""


def gaussian_denoise(table: Table, s: float, m: float = M) -> Denoise:
    """The ideal denoiser of scalar data N(m, s^2): E[x_0 | x_t] = m + alpha_t s^2 (x_t - alpha_t m) / v_t.

    v_t = abar_t s^2 + 1 - abar_t is the variance of x_t. ``raw`` is the matching noise.
    """

    @at_each_time
    def denoise(x_t: Tensor, t: int) -> Prediction:
        alpha, sigma = table.alpha(t), table.sigma(t)
        x0 = m + alpha * s**2 / (alpha**2 * s**2 + sigma**2) * (x_t - alpha * m)
        return Prediction(x0, (x_t - alpha * x0) / sigma)

    return denoise


def smooth_denoise(table: Table) -> Denoise:
    """A stand-in for a trained network: no ideal of any data, bounded, different at every time."""

    @at_each_time
    def denoise(x_t: Tensor, t: int) -> Prediction:
        eps = torch.tanh(x_t * (0.5 + 0.4 * math.sin(t / 90))) + 0.1 * math.cos(t / 17)
        return Prediction((x_t - table.sigma(t) * eps) / table.alpha(t), eps)

    return denoise


def nodes(D: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """(n, eps, weights): [N, D], [N, D] and [N], N = 9^D, float64.

    Three Gauss-Hermite nodes along each of the 2 D axes: sum(weights * f(n, eps)) is the exact expectation over
    standard normal n and eps for every polynomial f of degree 5 or less. All terms of the bound are quadratic.
    """
    one = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))
    grid = list(itertools.product(one, repeat=2 * D))
    places = torch.tensor([[place for place, _ in point] for point in grid], dtype=torch.float64)
    weights = torch.tensor([math.prod(weight for _, weight in point) for point in grid], dtype=torch.float64)
    return places[:, :D], places[:, D:], weights


def scalar_nodes(s: float, m: float = M) -> tuple[Tensor, Tensor, Tensor]:
    """(x_0, eps, weights) for data N(m, s^2), as images: [9, 1, 1, 1] twice and [9]."""
    n, eps, weights = nodes()
    return (m + s * n).view(9, 1, 1, 1), eps.view(9, 1, 1, 1), weights


def entropy(s: float) -> float:
    """The entropy of N(m, s^2) in nats."""
    return 0.5 * math.log(2 * math.pi * math.e * s**2)


def normal(name: str, *shape: int) -> Tensor:
    """Standard normal numbers named ``name``, the same in every run: float64 of this shape."""
    return randomness.normal(Key(0, f"verify {name}", 0, torch.arange(shape[0])), shape[1:]).double()


def output(
    sampler: Callable[..., Iterator[Step]],
    denoise: Denoise,
    process: Process,
    times: Sequence[int],
    shape: tuple[int, ...] = (1, 1, 1),
    **options: object,
) -> tuple[Tensor, Tensor]:
    """The mean [D] and covariance [D, D] of a sampler's output for standard normal x_T and noise, for an affine chain.

    The real sampler runs once, on a batch whose rows hold zeros, a unit in one element of x_T, or a unit in one element
    of one step's noise, and so shows each of its coefficients. Every step is offered noise, the last one included.
    """
    D, units = math.prod(shape), torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    x_T = torch.zeros(1 + D * len(times), *shape, dtype=torch.float64)
    x_T[1 : 1 + D] = units
    begins = {t: 1 + D * (i + 1) for i, t in enumerate(times[:-1])}

    def noise(t: int) -> Tensor:
        z = torch.zeros_like(x_T)
        z[begins[t] : begins[t] + D] = units
        return z

    *_, end = sampler(denoise, process, x_T, times, noise, **options)
    flat = end.x.flatten(1)
    columns = flat[1:] - flat[0]
    return flat[0], columns.mT @ columns
