"""Paths from noise to images, and the loss that learns where they end.

With ever shorter steps a deterministic chain follows the probability-flow ODE, whose paths do not cross: each x_t lies
on one path and each path ends in one image. `follow` goes along paths with a trained denoiser; each x_t on the way and
the image at the end are a pair to learn from (Luhman & Luhman 2021, who take x_T alone). What learns all of them is the
consistency function of Song et al. 2023, f(x_t, t) = the end of the path through x_t.

    loss = d( x_0_hat(x_t, t), end ) / sigma_t,    d = sqrt( squared error / D + c^2 ) - c    (D elements)

The spread of x_0 given x_t is about sigma_t near the image, so that this weight makes the losses of all times alike in
size. The distance is nearly the root mean square, to which pairs that the network cannot tell apart matter less.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, Denoiser
from unstir.diffusion.loss import Losses
from unstir.diffusion.samplers.unipc import unipc
from unstir.randomness import Key
from unstir.theory.process import Process

SMOOTH = 0.00054  # the c of the distance: Song & Dhariwal 2024, for a root mean square in place of a norm


@torch.no_grad()
def follow(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The states at falling ``times[:-1]``, [n, B, C, H, W], of UniPC's paths from ``x_T`` [B, C, H, W]; their ends."""
    states = [x_T, *(step.x for step in unipc(denoise, process, x_T, times, lambda t: x_T))]
    return torch.stack(states[:-1]), states[-1]


def path_loss(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    end: Tensor,
    condition: Tensor | None = None,
    dropout_key: Key | None = None,
) -> Losses:
    """The mean squared error of the estimates for ``x_t`` [B, C, H, W] at ``t``, int64 [B], from the paths' ``end``."""
    error = (denoiser(x_t, t, condition, dropout_key).x0 - end).square().flatten(1).mean(1)
    _, sigma = denoiser.process.schedule.gather(t, error)
    return Losses(((error + SMOOTH**2).sqrt() - SMOOTH) / sigma, error)
