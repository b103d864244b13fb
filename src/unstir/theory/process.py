"""The forward process and its exact reversal (Ho et al. 2020, sec. 2).

Forward, one step:    q(x_t | x_{t-1}) = N( sqrt(1 - beta_t) x_{t-1}, beta_t I )
Forward, closed form: q(x_t | x_0)     = N( alpha_t x_0, sigma_t^2 I )
Reverse, given x_0:   q(x_s | x_t, x_0) for any s < t, a Gaussian again by Bayes' rule

With c = 1 - SNR_t / SNR_s the reverse one has

    mean = (alpha_t sigma_s^2) / (alpha_s sigma_t^2) x_t + c alpha_s x_0        variance = c sigma_s^2

which is eqs. 6-7 for s = t - 1, is x_0 itself for s = 0, and makes sampling with large strides the same code. In this
form nothing cancels on long strides and nothing divides by alpha_T, which may be zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unstir.theory.schedule import Coefficient, NoiseSchedule


@dataclass(frozen=True)
class Gaussian:
    """N(mean, exp(log_var)), independent over elements; likelihoods are in nats, one number per element.

    ``mean`` is [B, ...]; ``log_var`` is a natural logarithm, a float or a tensor that broadcasts to the mean.
    log_var = -inf is a point mass: sampling returns the mean, likelihoods are not finite.
    """

    mean: Tensor
    log_var: Tensor | float

    @property
    def std(self) -> Tensor | float:
        """The standard deviation exp(log_var / 2)."""
        return torch.exp(0.5 * self.log_var) if isinstance(self.log_var, Tensor) else math.exp(0.5 * self.log_var)

    @property
    def var(self) -> Tensor | float:
        """The variance exp(log_var)."""
        return torch.exp(self.log_var) if isinstance(self.log_var, Tensor) else math.exp(self.log_var)

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, for standard normal ``noise`` of the mean's shape."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density at x in nats, an element each: -((x - mean)^2 / var + log_var + log 2 pi) / 2."""
        return -0.5 * ((x - self.mean) ** 2 / self.var + self.log_var + math.log(2 * math.pi))

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self || other) in nats, an element each; never negative."""
        difference = self.log_var - other.log_var  # two floats keep their double precision
        excess = torch.expm1(difference) if isinstance(difference, Tensor) else math.expm1(difference)
        return 0.5 * (excess - difference + (self.mean - other.mean) ** 2 / other.var)

    def discretised_log_prob(self, x: Tensor) -> Tensor:
        """log of the mass of x's bin [x - 1/255, x + 1/255] in nats, an element each.

        ``x`` holds pixels k/127.5 - 1 for k = 0..255; the outermost bins are open, so that the 256 masses sum to one
        (Ho et al. 2020, eq. 13). The normal CDF is the exact one, evaluated in the tail that keeps its precision.
        """
        std = self.std
        lower = torch.where(x < -0.999, -math.inf, (x - 1 / 255 - self.mean) / std)
        upper = torch.where(x > 0.999, math.inf, (x + 1 / 255 - self.mean) / std)
        flip = lower > 0  # P(lower < z < upper) = P(-upper < z < -lower): work in the lower tail
        low, high = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
        log_high: Tensor = torch.special.log_ndtr(high)
        return log_high + torch.log(-torch.expm1(torch.special.log_ndtr(low) - log_high))


@dataclass(frozen=True)
class Process:
    """The Markov chain that a schedule defines. Images are [B, C, H, W], any scale; t and s are times in 0..T."""

    schedule: NoiseSchedule

    @property
    def T(self) -> int:  # noqa: N802 - the papers' letter
        """The number of forward steps."""
        return self.schedule.T

    def diffuse(self, x_0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t eps (Ho et al. 2020, eq. 4); ``t`` int or int64 [B], ``eps`` like x_0."""
        alpha, sigma = self.schedule.gather(t, x_0)
        return alpha * x_0 + sigma * eps

    def marginal(self, x_0: Tensor, t: int) -> Gaussian:
        """q(x_t | x_0) as a distribution (Ho et al. 2020, eq. 4)."""
        return Gaussian(self.schedule.alpha(t) * x_0, _log(self.schedule.sigma(t) ** 2))

    def one_step(self, x_s: Tensor, t: int, s: int | None = None) -> Gaussian:
        """q(x_t | x_s), from s = t - 1 unless an earlier s is given (Ho et al. 2020, eq. 2)."""
        beta = self.schedule.beta(t, s)
        ratio = self.schedule.alpha(t) / self.schedule.alpha(t - 1 if s is None else s)
        return Gaussian(ratio * x_s, _log(beta))  # ratio = sqrt(1 - beta), which rounding would spoil for beta near 1

    def posterior(self, x_t: Tensor, x_0: Tensor, t: int, s: int) -> Gaussian:
        """q(x_s | x_t, x_0) for 0 <= s < t <= T (Ho et al. 2020, eqs. 6-7, for any stride)."""
        at_x_t, at_x_0, var = self.posterior_coefficients(t, s)
        return Gaussian(at_x_t * x_t + at_x_0 * x_0, _log(var))

    def posterior_coefficients(self, t: int, s: int) -> tuple[float, float, float]:
        """(coefficient of x_t, coefficient of x_0, variance beta~) of the posterior; variance 0 exactly when s = 0."""
        schedule = self.schedule
        if not 0 <= s < t <= schedule.T:
            raise ValueError(f"the posterior needs 0 <= s < t <= {schedule.T}; got t={t}, s={s}")
        c = -math.expm1(schedule.log_snr(t) - schedule.log_snr(s))
        var_s, var_t = schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
        at_x_t = schedule.alpha(t) * var_s / (schedule.alpha(s) * var_t)
        return at_x_t, c * schedule.alpha(s), c * var_s

    def eps(self, x_t: Tensor, x_0: Tensor, t: int | Tensor) -> Tensor:
        """The noise in x_t if the image is x_0: (x_t - alpha_t x_0) / sigma_t, for t in 1..T."""
        alpha, sigma = self.schedule.gather(t, x_t)
        return (x_t - alpha * x_0) / sigma

    def score(self, x_t: Tensor, x_0_hat: Tensor, t: int | Tensor) -> Tensor:
        """grad log q(x_t), where x_0_hat = E[x_0 | x_t]: (alpha_t x_0_hat - x_t) / sigma_t^2 = -eps_hat / sigma_t.

        Tweedie's formula (Efron 2011); for t in 1..T.
        """
        alpha, sigma = self.schedule.gather(t, x_t)
        return (alpha * x_0_hat - x_t) / sigma**2

    def log_variances(self, t: int, s: int) -> tuple[float, float]:
        """(log beta~, log beta) of the step t -> s, beta = 1 - abar_t / abar_s; natural logarithms.

        The reverse variance is chosen between them (`theory.parameterization`). Where s = 0, beta~ is 0 and its
        logarithm is -inf; see `step` for what stands in for it.
        """
        return _log(self.posterior_coefficients(t, s)[2]), _log(self.schedule.beta(t, s))

    def optimal_log_variance(self, t: int, s: int, error: float) -> float:
        """log(beta~ + c^2 m_t) of the step t -> s: the best variance that is one number (Bao et al. 2022, theorem 1).

        c is the coefficient of x_0 in the posterior's mean, m_t = ``error`` the mean squared error of its estimate.
        """
        _, at_x_0, var = self.posterior_coefficients(t, s)
        return _log(var + at_x_0**2 * error)

    def step(self, t: int | Tensor, like: Tensor) -> tuple[Coefficient, Coefficient, Coefficient]:
        """(coefficient of x_0 in the posterior's mean, log beta~, log beta) of the step t -> t - 1, for t in 1..T.

        Floats or tensors [B, 1, ...], as `NoiseSchedule.gather` has them. beta~_1 = 0, so its logarithm is replaced by
        that of t = 2, as in Nichol & Dhariwal's code; a chain of a single step has no other and takes log beta_1.
        """
        if isinstance(t, int):
            at_x_0, log_small, log_large = self._steps[t].tolist()
            return at_x_0, log_small, log_large
        key = (like.device, like.dtype)
        if key not in self._steps_moved:  # cast before they are moved: MPS has no float64
            self._steps_moved[key] = self._steps.to(like.dtype).to(like.device)
        at_x_0, log_small, log_large = self._steps_moved[key][t].view(-1, *[1] * (like.ndim - 1), 3).unbind(-1)
        return at_x_0, log_small, log_large

    def respaced(self, times: Sequence[int]) -> "Process":
        """The chain that visits only these times, falling to 0 as a sampler's do: its step k is that of times[-1 - k].

        Its abar are those of the times visited, so that its one-step beta is 1 - abar_t / abar_s (Nichol & Dhariwal
        2021, sec. 4). A network still receives the original time.
        """
        return Process(NoiseSchedule(self.schedule.log_abar[list(reversed(times))]))

    @cached_property
    def _steps(self) -> Tensor:
        """Float64 [T+1, 3]; the row of t = 0, from which no step leads, is NaN."""
        rows = [(self.posterior_coefficients(t, t - 1)[1], *self.log_variances(t, t - 1)) for t in range(1, self.T + 1)]
        table = torch.tensor([(math.nan,) * 3, *rows], dtype=torch.float64)
        table[1, 1] = table[2, 1] if self.T > 1 else table[1, 2]
        return table

    @cached_property
    def _steps_moved(self) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {}


def _log(var: float) -> float:
    return math.log(var) if var > 0 else -math.inf
