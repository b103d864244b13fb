"""Samplers: generators that turn noise into images step by step, all of them through the `Denoise` interface.

`unstir.parts` lists them with their files here, `unstir.chain` the facts about each; what they yield is below. The
times that they visit fall strictly, which `unstir.chain.Chain` sees to.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Noise = Callable[[int], Tensor]
"""Fresh standard normal noise [B, C, H, W] for the step that leaves time t; the same t always gives the same noise."""


@dataclass(frozen=True)
class Step:
    """The state after a step: ``x`` [B, C, H, W] at time ``t``, and the estimate ``x0`` it was made from."""

    t: int
    x: Tensor
    x0: Tensor
