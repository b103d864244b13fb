"""The papers' schedules and formulas in 50-digit decimals, sharing no code with the package's own.

It is neither fast nor general: a reference to compare with.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def _fifty_digits(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def exactly(*args: P.args, **kwargs: P.kwargs) -> R:
        with localcontext(prec=50):
            return function(*args, **kwargs)

    return exactly


@dataclass(frozen=True)
class Table:
    """abar_0..abar_T to 50 digits. Methods take times 0 <= s < t <= T and round their result once, to a float."""

    abars: tuple[Decimal, ...]

    @property
    def T(self) -> int:  # noqa: N802 - the papers' letter
        """The number of steps of the forward process."""
        return len(self.abars) - 1

    def abar(self, t: int) -> float:
        """abar_t, the product of 1 - beta_s over s <= t."""
        return float(self.abars[t])

    @_fifty_digits
    def alpha(self, t: int) -> float:
        """sqrt(abar_t), which scales the image in x_t."""
        return float(self.abars[t].sqrt())

    @_fifty_digits
    def var(self, t: int) -> float:
        """1 - abar_t, the variance of the noise in x_t."""
        return float(1 - self.abars[t])

    @_fifty_digits
    def sigma(self, t: int) -> float:
        """sqrt(1 - abar_t), the standard deviation of the noise in x_t."""
        return float((1 - self.abars[t]).sqrt())

    @_fifty_digits
    def snr(self, t: int) -> float:
        """abar_t / (1 - abar_t), for t >= 1."""
        return float(self.abars[t] / (1 - self.abars[t]))

    @_fifty_digits
    def snr_fall(self, t: int, s: int) -> float:
        """SNR_s - SNR_t, for s >= 1."""
        return float(self.abars[s] / (1 - self.abars[s]) - self.abars[t] / (1 - self.abars[t]))

    @_fifty_digits
    def beta(self, t: int, s: int | None = None) -> float:
        """1 - abar_t / abar_s, of one step (s = t - 1) unless s is given."""
        return float(1 - self.abars[t] / self.abars[t - 1 if s is None else s])

    @_fifty_digits
    def posterior(self, t: int, s: int | None = None) -> tuple[float, float, float]:
        """(coefficient of x_t, coefficient of x_0, beta~) of q(x_s | x_t, x_0): Ho et al. 2020, eqs. 6-7.

        A stride is one step of the coarser chain that visits s and t: there alpha_t is abar_t / abar_s.
        """
        before = self.abars[t - 1 if s is None else s]
        abar, alpha_t = self.abars[t], self.abars[t] / before
        at_x_t = alpha_t.sqrt() * (1 - before) / (1 - abar)
        at_x_0 = before.sqrt() * (1 - alpha_t) / (1 - abar)
        return float(at_x_t), float(at_x_0), float((1 - before) / (1 - abar) * (1 - alpha_t))

    def small(self, t: int, s: int, before: int | None = None) -> float:
        """beta~ of the step t -> s; where s = 0 it is 0, and that of the step ``before`` -> t stands in for it."""
        if s > 0 or before is None:
            return self.posterior(t, s)[2]
        return self.posterior(before, t)[2]

    def tensor(self, of: Callable[[int], float], times: Iterable[int]) -> Tensor:
        """One of these methods at many times: float64 [n]."""
        return torch.tensor([of(t) for t in times], dtype=torch.float64)


@cache
@_fifty_digits
def linear(T: int = 1000, beta_1: str = "1e-4", beta_T: str = "0.02") -> Table:
    """The betas of Ho et al. 2020, sec. 4, evenly spaced from the first to the last."""
    first, last = Decimal(beta_1), Decimal(beta_T)
    return _product(first + (last - first) * i / (T - 1) for i in range(T))


@cache
@_fifty_digits
def cosine(T: int = 1000) -> Table:
    """Nichol & Dhariwal 2021, eq. 17 with s = 0.008: betas from the curve, clipped to 0.999, abar from them."""
    offset = Decimal("0.008")
    curve = [_cos((Decimal(t) / T + offset) / (1 + offset) * _PI / 2) ** 2 for t in range(T + 1)]
    return _product(min(1 - curve[t] / curve[t - 1], Decimal("0.999")) for t in range(1, T + 1))


@cache
@_fifty_digits
def sigmoid(T: int = 1000) -> Table:
    """Jabri, Fleet & Chen 2022, from -3 to 3 at temperature 1; clipped and multiplied up as the cosine."""
    logistic = [1 / (1 + (3 - Decimal(6) * t / T).exp()) for t in range(T + 1)]
    curve = [logistic[T] - value for value in logistic]
    return _product(min(1 - curve[t] / curve[t - 1], Decimal("0.999")) for t in range(1, T + 1))


def _product(betas: Iterable[Decimal]) -> Table:
    abars = [Decimal(1)]
    for beta in betas:
        abars.append(abars[-1] * (1 - beta))
    return Table(tuple(abars))


def _cos(x: Decimal) -> Decimal:
    """The cosine by its Taylor series, for 0 <= x <= pi/2."""
    term = total = Decimal(1)
    for k in range(1, 60, 2):
        term *= -x * x / (k * (k + 1))
        total += term
    return total
