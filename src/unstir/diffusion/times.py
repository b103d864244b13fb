"""Fixed distributions of the times to train on, by the log of the signal-to-noise ratio.

A time is drawn with the probability that a density of lambda = log SNR (natural logarithm) gives to the times'
stretches of lambda. A density about lambda = 0 spends the training where signal and noise are of one size, which the
network finds hardest and where most of an image is decided (Hang et al. 2024, "Improved noise schedule for diffusion
training": Laplace of scale 0.5 about 0). Karras et al. 2022's log-normal sigma (mean -1.2, std 1.2 of log sigma) is
the normal density with mean 2.4 and std 2.4 of lambda = -2 log sigma.

A tenth of the draws is even over 1..T: a sampler begins at T, which such a density alone would never train.

`middles` are the times at which losses are followed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.theory.schedule import NoiseSchedule

DENSITIES = ("laplace", "normal")
EVEN_SHARE = 0.1


def probabilities(schedule: NoiseSchedule, density: str, mean: float, scale: float) -> Tensor:
    """p_t of the times 1..T: float64 [T], of sum one.

    ``density`` of lambda is "laplace", exp(-|lambda - mean| / scale), or "normal" with std ``scale``. The stretch of a
    time is half the way to its neighbours; T counts as its neighbour where it holds no signal, lambda = -inf. Raises
    UserError for an unknown density, a mean that is not finite, or a scale that is no finite number above 0.
    """
    if density not in DENSITIES:
        raise UserError("density", density, "is unknown", f"choose one of {', '.join(DENSITIES)}")
    if not (math.isfinite(mean) and 0 < scale < math.inf):
        raise UserError("mean", mean, f"must be finite, and scale={scale} finite and above 0", "0 and 0.5 are usual")
    last = schedule.T if schedule.abar(schedule.T) > 0 else schedule.T - 1
    log_snr = torch.tensor([schedule.log_snr(t) for t in range(1, last + 1)], dtype=torch.float64)
    away = (log_snr - mean).abs() / scale
    log_density = -away if density == "laplace" else -away.square() / 2
    log_mass = log_density + (-torch.gradient(log_snr)[0]).log() if last > 1 else log_density
    p = torch.cat((log_mass, log_mass[last - 1 :].expand(schedule.T - last))).softmax(0)
    return (1 - EVEN_SHARE) * p + EVEN_SHARE / schedule.T


@dataclass(frozen=True, eq=False)
class TimeTable:
    """Draws times with given probabilities: ``p`` float64 (float32 on MPS) [T], of the times 1..T."""

    p: Tensor

    def draw(self, key: Key) -> Tensor:
        """A time in 1..T per slot: int64 [B]."""
        return self.at(randomness.uniform(key, self.p.dtype))

    def at(self, shares: Tensor) -> Tensor:
        """The time at which the probabilities from t = 1 on exceed each of ``shares`` [B] of their sum: int64 [B].

        Shares are in [0, 1), of the dtype of ``p``; evenly spaced ones give times that follow the probabilities.
        """
        edges = running_sums(self.p)
        return torch.searchsorted(edges, shares * edges[-1], right=True).clamp(max=len(self.p) - 1) + 1


def running_sums(values: Tensor) -> Tensor:
    """The sums of the first 1..n of ``values`` [n], by doubling: the same bits each time, unlike cumsum's on CUDA."""
    reach = 1
    while reach < len(values):
        values = torch.cat((values[:reach], values[reach:] + values[:-reach]))
        reach *= 2
    return values


def middles(T: int, num: int) -> tuple[int, ...]:
    """The middle of each of ``num`` equal parts of 1..T, the lower of two, rising; every time where num >= T."""
    num = min(num, T)
    return tuple(-(-(2 * k + 1) * T // (2 * num)) for k in range(num))
