"""The exponential moving average of the weights, which is what a trained model is sampled from."""

import copy

import torch
from torch import Tensor, nn


def averaged_copy(net: nn.Module) -> nn.Module:
    """A copy of the network to hold the average: in evaluation mode for good, without gradients."""
    return copy.deepcopy(net).eval().requires_grad_(False)


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
