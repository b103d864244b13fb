"""The probability-flow ODE in the form that fast samplers solve.

In the time lambda = log(alpha / sigma), half the log-SNR, the noise-free process that has the same marginals as the
forward one obeys (Song et al. 2021; Lu et al. 2022, DPM-Solver++, eq. 8)

    x_s = (sigma_s / sigma_t) x_t + sigma_s integral_{lambda_t}^{lambda_s} e^lambda x_0_hat(lambda) dlambda

The first factor is exact; a sampler only chooses a polynomial for x_0_hat(lambda) through the estimates it has. One
constant gives DDIM. Only differences of lambda occur, so that alpha_T = 0 (lambda = -inf) needs no special case but
that an estimate made there has no slope; and s = 0 (lambda = +inf) is the estimate itself.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from unstir.theory.schedule import NoiseSchedule


@dataclass(frozen=True)
class Span:
    """A step from time t to s < t: ``ratio`` = sigma_s / sigma_t, ``alpha`` = alpha_s, ``sigma`` = sigma_s, and
    ``h`` = lambda_s - lambda_t."""

    ratio: float
    alpha: float
    sigma: float
    h: float

    @classmethod
    def of(cls, schedule: NoiseSchedule, t: int, s: int) -> "Span":
        """The span between two times of a schedule."""
        sigma = schedule.sigma(s)
        return cls(
            sigma / schedule.sigma(t), schedule.alpha(s), sigma, half_log_snr(schedule, s) - half_log_snr(schedule, t)
        )

    @property
    def weight(self) -> float:
        """alpha_s (1 - e^-h), the factor of a constant estimate."""
        return -self.alpha * math.expm1(-self.h)


@dataclass(frozen=True)
class Estimate:
    """An estimate of the clean image, ``x0`` [B, C, H, W], made at ``lambda_``."""

    lambda_: float
    x0: Tensor


def half_log_snr(schedule: NoiseSchedule, t: int) -> float:
    """lambda_t = log(alpha_t / sigma_t)."""
    return 0.5 * schedule.log_snr(t)


def remember(history: list[Estimate], estimate: Estimate, length: int) -> list[Estimate]:
    """The history with a new estimate last, the newest ``length`` of it; none made at lambda = -inf is kept."""
    return [each for each in (*history, estimate) if math.isfinite(each.lambda_)][-length:]
