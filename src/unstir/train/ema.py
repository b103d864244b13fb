"""The exponential moving average of the weights, which is what a trained model is sampled from."""

import copy

import torch
from torch import Tensor, nn


def averaged_copy(net: nn.Module) -> nn.Module:
    """A copy of the network to hold the average: in evaluation mode for good, without gradients."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def decay(step: int, largest: float, warmup: bool) -> float:
    """The decay of the update after optimiser step ``step``, counted from 0.

    Without a warm-up an average of decay 0.9999 still is 37% initial weights after 10,000 steps; with it the decay is
    at most (1 + n) / (10 + n) at update n, so that early averages span the last tenth of the way.
    """
    return min(largest, (1 + step) / (10 + step)) if warmup else largest


@torch.no_grad()
def update(average: nn.Module, net: nn.Module, decay: float, applied: Tensor) -> None:
    """average += (1 - decay) (net - average) for every parameter; buffers are copied.

    ``applied`` is a float scalar on the device, 1 where the optimiser took its step and 0 where it skipped it; a
    skipped step leaves the average as it was too.
    """
    ours: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(net.parameters())
    moves = torch._foreach_sub(theirs, ours)
    torch._foreach_mul_(moves, applied * (1 - decay))  # a tensor, so that the device is not waited for
    torch._foreach_add_(ours, moves, alpha=1)
    for mine, buffer in zip(average.buffers(), net.buffers(), strict=True):
        mine.copy_(buffer)
