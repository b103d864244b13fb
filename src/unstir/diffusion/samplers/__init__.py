"""Samplers: generators that turn noise into images step by step, all of them through the `Denoise` interface.

`unstir.parts` lists them with their files here, `unstir.chain` the facts about each; what they yield is below.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from unstir.theory.process import Process

Noise = Callable[[int], Tensor]
"""Fresh standard normal noise [B, C, H, W] for the step that leaves time t; the same t always gives the same noise."""


@dataclass(frozen=True)
class Step:
    """The state after a step: ``x`` [B, C, H, W] at time ``t``, and the estimate ``x0`` it was made from."""

    t: int
    x: Tensor
    x0: Tensor


def check_times(times: Sequence[int], process: Process) -> None:
    """Raise ValueError unless the times fall strictly, from at most T to the end of the chain, 0 or above."""
    falling = all(t > s for t, s in pairwise(times))
    if len(times) < 2 or not falling or times[-1] < 0 or times[0] > process.T:
        raise ValueError(f"times must fall strictly from at most T={process.T} to 0 or above; got {list(times)[:4]}...")
