"""What the network predicts, the noise, the image or the velocity, and the variance of a reverse step.

Each prediction is a pair (c_skip, c_out) that turns the network's output F into an estimate of the clean image,

    x_0_hat = c_skip x_t + c_out F            target = (x_0 - c_skip x_t) / c_out

eps: F estimates the noise (Ho et al. 2020); x0: the image; v: alpha eps - sigma x_0 (Salimans & Ho 2022). A loss
compares F with its target, so it never divides an error by sigma.

The variance is one of two that are exact for extreme data, one between them, or the best one number.

    small    beta~, the posterior's own: exact if the data were a single point
    large    beta = 1 - abar_t / abar_s: exact if the data were standard normal
    learned  exp( v log beta + (1 - v) log beta~ ), with v predicted for each element by the network
    optimal  beta~ + c^2 m_t: c the mean's coefficient of x_0, m_t the mean squared error of the estimate of x_0

The first two are Ho et al. 2020, sec. 3.2, between which the best variance lies for data of at most unit variance; the
third is Nichol & Dhariwal 2021, eq. 15. The last minimises the bound among all variances that are the same for every
element and every x_t (Bao et al. 2022, "Analytic-DPM", theorem 1, for an estimate that need not be the ideal one).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.theory.schedule import Coefficient, NoiseSchedule

LEAST = 1e-30
"""The least alpha_T that eps is predicted with: x_T / alpha_T is then far below the largest float32 number, 3e38."""

OfSchedule = Callable[[Coefficient, Coefficient], Coefficient]  # a function of (alpha_t, sigma_t)


@dataclass(frozen=True)
class Parameterization:
    """One choice of prediction: ``c_skip`` and ``c_out`` as functions of (alpha_t, sigma_t), and its target."""

    name: str
    c_skip: OfSchedule
    c_out: OfSchedule
    _target: Callable[[Coefficient, Coefficient, Tensor, Tensor], Tensor]

    def x0(self, schedule: NoiseSchedule, x_t: Tensor, t: int | Tensor, raw: Tensor) -> Tensor:
        """x_0_hat = c_skip x_t + c_out F, shaped like x_t; ``raw`` is the network's output F."""
        alpha, sigma = schedule.gather(t, x_t)
        return self.c_skip(alpha, sigma) * x_t + self.c_out(alpha, sigma) * raw

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """What F should be for x_t = alpha_t x_0 + sigma_t eps: shaped like x_0, written without a division."""
        alpha, sigma = schedule.gather(t, x_0)
        return self._target(alpha, sigma, x_0, eps)

    def check(self, schedule: NoiseSchedule) -> None:
        """Raise UserError where the pair is undefined or no float32 number: eps, for an alpha_T below `LEAST`."""
        if self.name != "eps" or (last := schedule.alpha(schedule.T)) >= LEAST:
            return
        small = f"{last:.1e}, too small for float32 numbers" if last else "0"
        raise UserError("predict", self.name, f"divides by alpha_T, which is {small}", {"predict": "v"})


PARAMETERIZATIONS = {
    "eps": Parameterization(
        "eps", lambda alpha, sigma: 1 / alpha, lambda alpha, sigma: -sigma / alpha, lambda alpha, sigma, x_0, eps: eps
    ),
    "x0": Parameterization(
        "x0", lambda alpha, sigma: 0.0, lambda alpha, sigma: 1.0, lambda alpha, sigma, x_0, eps: x_0
    ),
    "v": Parameterization(
        "v",
        lambda alpha, sigma: alpha,
        lambda alpha, sigma: -sigma,
        lambda alpha, sigma, x_0, eps: alpha * eps - sigma * x_0,
    ),
}


VARIANCES = ("small", "large", "learned", "optimal")
_NO_SIGNAL = -1000.0  # stands for the log-SNR of alpha_T = 0, which is -inf


def check_variance(kind: str, learned: bool, measured: bool) -> None:
    """Raise UserError for an unknown ``kind``, "learned" if not ``learned``, "optimal" without errors ``measured``."""
    if kind not in ("auto", *VARIANCES):
        raise UserError("variance", kind, "is unknown", f"choose one of auto, {', '.join(VARIANCES)}")
    if kind == "learned" and not learned:
        raise UserError("variance", kind, "needs a network that has learned it", {"variance": "auto"})
    if kind == "optimal" and not measured:
        lacks = "needs the errors of these weights by time, which were not measured"
        raise UserError("variance", kind, lacks, ("unstir likelihood RUN --variance optimal", {"variance": "auto"}))


def chosen_variance(kind: str, learned: bool, every_time: bool) -> str:
    """What "auto" means: learned where it was, else large for a chain that visits every time, else small."""
    if kind != "auto":
        return kind
    return "learned" if learned else "large" if every_time else "small"


def log_variance(
    kind: str, log_small: Coefficient, log_large: Coefficient, fraction: Tensor | None = None
) -> Coefficient:
    """The logarithm of the chosen variance; ``fraction`` is v, [B, C, H, W], of "learned". Raises ValueError."""
    if kind == "small":
        return log_small
    if kind == "large":
        return log_large
    if kind != "learned" or fraction is None:
        raise ValueError(f"variance {kind!r} is unknown, or lacks its fraction")
    return fraction * log_large + (1 - fraction) * log_small


def error_at_each_time(schedule: NoiseSchedule, times: Sequence[int], errors: Sequence[float]) -> Tensor:
    """m_t at t = 0..T (NaN at 0), float64, from ``errors`` > 0 at rising ``times``, linear in the log-SNR between."""
    log_snr = [max(schedule.log_snr(t), _NO_SIGNAL) for t in range(1, schedule.T + 1)]
    at = [-log_snr[t - 1] for t in times]  # rising
    return torch.tensor([np.nan, *np.exp(np.interp(np.negative(log_snr), at, np.log(errors)))], dtype=torch.float64)
