"""What training minimises: the simple loss, the variational bound, or both.

    simple   w(t) || F(x_t, t) - target ||^2 / D               (Ho et al. 2020, eq. 14, where w = 1; D elements)
    vlb      T L_{t-1}, the bound's term at a random t         (an unbiased estimate of the bound without its prior)
    hybrid   simple + 0.001 vlb                                (Nichol & Dhariwal 2021, eq. 16)

The vlb is in bits per dimension, as in their code. In the hybrid the mean of the reverse step is a constant for it, so
that it trains only the variance.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.likelihood import bound_term
from unstir.errors import UserError
from unstir.randomness import Key

OBJECTIVES = ("simple", "hybrid", "vlb")


class Losses(NamedTuple):
    """Per image, float [B]: what is minimised, the mean squared error, and T L_{t-1} in bits per dimension."""

    total: Tensor
    mse: Tensor
    bits: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """What is minimised. ``weights`` are those of the squared error by time, float64 [T+1]; None weighs all equally.

    ``vlb_weight`` is the bound's factor in the hybrid. Raises UserError for an unknown kind, or a factor that is no
    finite number above 0.
    """

    kind: str = "simple"
    weights: Tensor | None = None
    vlb_weight: float = 0.001

    def __post_init__(self) -> None:
        if self.kind not in OBJECTIVES:
            raise UserError(f"objective={self.kind!r} is unknown; choose one of {', '.join(OBJECTIVES)}")
        if not 0 < self.vlb_weight < math.inf:
            raise UserError(f"vlb_weight={self.vlb_weight} must be positive and finite; 0.001 is usual")


SIMPLE = Objective()


def denoising_loss(
    denoiser: Denoiser,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    label: Tensor | None = None,
    dropout_key: Key | None = None,
    objective: Objective = SIMPLE,
) -> Losses:
    """The losses of each image, in the dtype of x_0.

    ``x_0`` [B, C, H, W] in [-1, 1], ``t`` int64 [B] in 1..T, ``eps`` standard normal. Noising and the error keep x_0's
    float32 whatever the network computes in: in bfloat16 abar_t rounds to 1 for t <= 10 of the linear schedule, so that
    x_t would be clean while its target is pure noise. A squared error of 1 is what predicting zero noise costs.
    """
    schedule = denoiser.process.schedule
    x_t = denoiser.process.diffuse(x_0, t, eps)
    target = denoiser.parameterization.target(schedule, x_0, t, eps)
    prediction = denoiser(x_t, t, label, dropout_key)
    mse = (prediction.raw - target).square().flatten(1).mean(1)
    simple = mse if objective.weights is None else objective.weights.to(mse)[t] * mse
    if objective.kind == "simple":
        return Losses(simple, mse)
    if objective.kind == "hybrid":
        prediction = replace(prediction, x0=prediction.x0.detach())
    variance = "learned" if denoiser.learned_variance else "large"
    nats = bound_term(prediction, denoiser.process, x_0, t, variance)
    bits = nats * (schedule.T / (x_0[0].numel() * math.log(2)))
    return Losses(bits if objective.kind == "vlb" else simple + objective.vlb_weight * bits, mse, bits)
