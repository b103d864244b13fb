"""Paths from noise to images, and the loss that learns to go along them in few calls.

With ever shorter steps a deterministic chain follows the probability-flow ODE, whose paths do not cross: each x_t lies
on one path and each path ends in one image. `follow` goes along paths with a trained denoiser, in many short steps.
Between two times t > s of a path, `targets` has the estimate of x_0 by which one step of `ddim` goes all the way
(Salimans & Ho 2022, appendix G, who double the stride stage by stage; Luhman & Luhman 2021 have one stride, T to 0):

    x_s = alpha_s x_0* + sigma_s eps*,  x_t = alpha_t x_0* + sigma_t eps*
    x_0* = ( x_s - (sigma_s / sigma_t) x_t ) / ( alpha_s - (sigma_s / sigma_t) alpha_t )
    loss = d( x_0_hat(x_t, t), x_0* ) / sigma_t,    d = sqrt( squared error / D + c^2 ) - c    (D elements)

The spread of x_0 given x_t is about sigma_t near the image, so that this weight makes the losses of all times alike in
size. The distance is nearly the root mean square, to which pairs that the network cannot tell apart matter less.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, Denoiser
from unstir.diffusion.loss import Losses
from unstir.diffusion.samplers.unipc import unipc
from unstir.randomness import Key
from unstir.theory.process import Process

SMOOTH = 0.00054  # the c of the distance: Song & Dhariwal 2024, for a root mean square in place of a norm


@torch.no_grad()
def follow(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int]) -> Tensor:
    """The states at falling ``times``, [n, B, C, H, W], of UniPC's paths from ``x_T`` [B, C, H, W], the first one."""
    return torch.stack([x_T, *(step.x for step in unipc(denoise, process, x_T, times, lambda t: x_T))])


def targets(process: Process, states: Tensor, times: Sequence[int]) -> Tensor:
    """The x_0* by which a step of `ddim` goes from each of ``states`` [n, B, ...] to the next, [n-1, B, ...]."""
    found, schedule = [], process.schedule
    for (x_t, t), (x_s, s) in pairwise(zip(states, times, strict=True)):
        ratio = schedule.sigma(s) / schedule.sigma(t)
        found.append((x_s - ratio * x_t) / (schedule.alpha(s) - ratio * schedule.alpha(t)))
    return torch.stack(found)


def path_loss(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    target: Tensor,
    condition: Tensor | None = None,
    dropout_key: Key | None = None,
) -> Losses:
    """The mean squared error of the estimates for ``x_t`` [B, C, H, W] at ``t``, int64 [B], from their ``target``."""
    error = (denoiser(x_t, t, condition, dropout_key).x0 - target).square().flatten(1).mean(1)
    _, sigma = denoiser.process.schedule.gather(t, error)
    return Losses(((error + SMOOTH**2).sqrt() - SMOOTH) / sigma, error)
