"""A Gaussian with a diagonal covariance, which is all that diffusion's equations need."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


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
        if isinstance(self.log_var, Tensor):
            return torch.exp(0.5 * self.log_var)
        return math.exp(0.5 * self.log_var)

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

    def discretised_log_prob(self, x: Tensor, half_width: float = 1 / 255) -> Tensor:
        """log of the mass of x's bin [x - half_width, x + half_width] in nats, an element each.

        ``x`` holds pixels k/127.5 - 1 for k = 0..255; the outermost bins are open, so that the 256 masses sum to one
        (Ho et al. 2020, eq. 13). The normal CDF is the exact one, evaluated in the tail that keeps its precision.
        """
        std = self.std
        lower = torch.where(x < -0.999, -math.inf, (x - half_width - self.mean) / std)
        upper = torch.where(x > 0.999, math.inf, (x + half_width - self.mean) / std)
        flip = lower > 0  # P(lower < z < upper) = P(-upper < z < -lower): work in the lower tail
        low, high = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
        log_high: Tensor = torch.special.log_ndtr(high)
        return log_high + torch.log(-torch.expm1(torch.special.log_ndtr(low) - log_high))
