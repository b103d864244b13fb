"""Exact references: the papers' schedules and formulas in 50-digit decimals, and what is known of Gaussian data.

The decimals share no code with the package's own; they are neither fast nor general. Of Gaussian data every expectation
is exact: here are ideal denoisers, quadrature nodes, and samplers as affine maps.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from unstir import randomness
from unstir.diffusion.denoiser import Denoise, Prediction, at_each_time
from unstir.diffusion.samplers import Step
from unstir.randomness import Key
from unstir.theory.process import Process

M = 0.3  # the mean of the scalar data of most checks
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def float64(numbers: Sequence[Any]) -> Tensor:
    """The numbers, or rows of numbers, as a float64 tensor."""
    return torch.tensor(numbers, dtype=torch.float64)


@contextmanager
def _fifty_digits() -> Iterator[None]:
    with localcontext(prec=50):
        yield


@dataclass(frozen=True)
class Table:
    """abar_0..abar_T to 50 digits. Methods take times 0 <= s < t <= T and round their result once, to a float."""

    abars: tuple[Decimal, ...]

    def abar(self, t: int) -> float:
        """abar_t, the product of 1 - beta_s over s <= t."""
        return float(self.abars[t])

    @_fifty_digits()
    def alpha(self, t: int) -> float:
        """sqrt(abar_t), which scales the image in x_t."""
        return float(self.abars[t].sqrt())

    @_fifty_digits()
    def var(self, t: int) -> float:
        """1 - abar_t, the variance of the noise in x_t."""
        return float(1 - self.abars[t])

    @_fifty_digits()
    def sigma(self, t: int) -> float:
        """sqrt(1 - abar_t), the standard deviation of the noise in x_t."""
        return float((1 - self.abars[t]).sqrt())

    @_fifty_digits()
    def snr(self, t: int) -> float:
        """abar_t / (1 - abar_t), for t >= 1."""
        return float(self.abars[t] / (1 - self.abars[t]))

    @_fifty_digits()
    def beta(self, t: int, s: int | None = None) -> float:
        """1 - abar_t / abar_s, of one step (s = t - 1) unless s is given."""
        return float(1 - self.abars[t] / self.abars[t - 1 if s is None else s])

    @_fifty_digits()
    def posterior(self, t: int, s: int | None = None) -> tuple[float, float, float]:
        """(coefficient of x_t, coefficient of x_0, beta~) of q(x_s | x_t, x_0): Ho et al. 2020, eqs. 6-7.

        A stride is one step of the coarser chain that visits s and t: there alpha_t is abar_t / abar_s.
        """
        abar, before = self.abars[t], self.abars[t - 1 if s is None else s]
        alpha_t = abar / before
        at_x_t = alpha_t.sqrt() * (1 - before) / (1 - abar)
        at_x_0 = before.sqrt() * (1 - alpha_t) / (1 - abar)
        return float(at_x_t), float(at_x_0), float((1 - before) / (1 - abar) * (1 - alpha_t))

    def small(self, t: int, s: int, before: int) -> float:
        """beta~ of the step t -> s; where s = 0 it is 0, and that of the step ``before`` -> t stands in for it."""
        return self.posterior(t, s)[2] if s > 0 else self.posterior(before, t)[2]

    def tensor(self, of: Callable[[int], float], times: Iterable[int]) -> Tensor:
        """One of these methods at many times: float64 [n]."""
        return float64([of(t) for t in times])


@cache
@_fifty_digits()
def linear(T: int = 1000, beta_1: str = "1e-4", beta_T: str = "0.02") -> Table:
    """The betas of Ho et al. 2020, sec. 4, evenly spaced from the first to the last."""
    first, last = Decimal(beta_1), Decimal(beta_T)
    return _product(first + (last - first) * i / (T - 1) for i in range(T))


@cache
@_fifty_digits()
def cosine() -> Table:
    """Nichol & Dhariwal 2021, eq. 17 with s = 0.008: betas from the curve, clipped to 0.999, abar from them."""
    offset = Decimal("0.008")
    return _from_curve([_cos((Decimal(t) / 1000 + offset) / (1 + offset) * _PI / 2) ** 2 for t in range(1001)])


@cache
@_fifty_digits()
def sigmoid() -> Table:
    """Jabri, Fleet & Chen 2022, from -3 to 3 at temperature 1; clipped and multiplied up as the cosine."""
    logistic = [1 / (1 + (3 - Decimal(6) * t / 1000).exp()) for t in range(1001)]
    return _from_curve([logistic[-1] - value for value in logistic])


def _from_curve(curve: Sequence[Decimal]) -> Table:
    return _product(min(1 - after / before, Decimal("0.999")) for before, after in pairwise(curve))


def _product(betas: Iterable[Decimal]) -> Table:
    return Table(tuple(accumulate((1 - beta for beta in betas), mul, initial=Decimal(1))))


def _cos(x: Decimal) -> Decimal:
    """The cosine by its Taylor series, for 0 <= x <= pi/2."""
    term = total = Decimal(1)
    for k in range(1, 60, 2):
        term *= -x * x / (k * (k + 1))
        total += term
    return total


def denoising(table: Table, estimate: Callable[[Tensor, int], Tensor]) -> Denoise:
    """The denoiser of an ``estimate`` of x_0, a function of x_t and t; ``raw`` is the matching noise."""

    @at_each_time
    def denoise(x_t: Tensor, t: int) -> Prediction:
        x0 = estimate(x_t, t)
        return Prediction(x0, (x_t - table.alpha(t) * x0) / table.sigma(t))

    return denoise


def gaussian_denoise(table: Table, s: float, m: float = M) -> Denoise:
    """The ideal denoiser of scalar data N(m, s^2): E[x_0 | x_t] = m + alpha_t s^2 (x_t - alpha_t m) / v_t.

    v_t = abar_t s^2 + 1 - abar_t is the variance of x_t.
    """
    return denoising(
        table,
        lambda x_t, t: m + table.alpha(t) * s**2 / (table.abar(t) * s**2 + table.var(t)) * (x_t - table.alpha(t) * m),
    )


def ideal_fraction(table: Table, s: float, t: int) -> float:
    """Where the log-variance of p(x_{t-1} | x_t) lies between those of beta~ and beta, for data N(m, s^2)."""
    _, at_x_0, small = table.posterior(t)
    remaining = s**2 * table.var(t) / (table.abar(t) * s**2 + table.var(t))
    low, high = math.log(table.small(t, t - 1, t + 1)), math.log(table.beta(t))
    return (math.log(small + at_x_0**2 * remaining) - low) / (high - low)


class Network(nn.Module):
    """A network whose output is always the same, or a function of x_t and of t - 1, which every network receives."""

    def __init__(self, output: Tensor | Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        """The output."""
        return self.output if isinstance(self.output, Tensor) else self.output(x, time)


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
    one = ((-math.sqrt(3), 0.0, math.sqrt(3)), (1 / 6, 2 / 3, 1 / 6))
    axes = (float64(points) for points in one)
    places, weights = (torch.cartesian_prod(*[axis] * (2 * D)) for axis in axes)
    return places[:, :D], places[:, D:], weights.prod(1)


def scalar_nodes(s: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x_0, eps, weights) for data N(M, s^2), as images: [9, 1, 1, 1] twice and [9]."""
    n, eps, weights = nodes()
    return (M + s * n).view(9, 1, 1, 1), eps.view(9, 1, 1, 1), weights


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

    def noise(t: int) -> Tensor:
        z, begin = torch.zeros_like(x_T), 1 + D * (1 + times.index(t))
        z[begin : begin + D] = units
        return z

    *_, end = sampler(denoise, process, x_T, times, noise, **options)
    flat = end.x.flatten(1)
    columns = flat[1:] - flat[0]
    return flat[0], columns.mT @ columns
