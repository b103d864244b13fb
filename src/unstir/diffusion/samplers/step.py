"""What a sampler yields and what it draws."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Noise = Callable[[int], Tensor]
"""Fresh standard normal noise [B, C, H, W] for the step that leaves time t; the same t always gives the same noise."""


@dataclass(frozen=True)
class Step:
    """The state after one network call: ``x`` [B, C, H, W] at time ``t``, and the estimate ``x0`` it was made from."""

    t: int
    x: Tensor
    x0: Tensor
