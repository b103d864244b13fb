"""The least loss that any network can have on a finite set of images: that of the posterior mean over all of them.

For an image y_i drawn from the set and x_t = alpha y_i + sigma eps, the estimate of least squared error is the mean of
the posterior weights w_j(x_t) of `oracle.FiniteData`, and what it leaves is E tr Cov[x_0 | x_t]. Given x_t, the image
it was made from is itself a draw from the posterior; for two independent draws i and j the trace is half of
E ||y_i - y_j||^2, and the second draw can be summed out:

    E tr Cov[x_0 | x_t] = E 1/2 sum_j w_j(x_t) ||y_i - y_j||^2                       over i and eps
    w_j ~ exp( -snr/2 ||y_i - y_j||^2 - sqrt(snr) eps.(y_i - y_j) )                  snr = alpha^2 / sigma^2

So a *query* (i, eps) is an unbiased estimate, and queries may be few; the sum over j may not. The posterior over some
of the images is surer than that over all, and would give the floor of a smaller set, which is lower. No mean image is
needed: one product of the set with the query's image and one with its noise serve every time. The weight of j = i is 1
and no other can overflow: with zeta standard normal, the exponent is at most zeta^2 / 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import threshold

from unstir.pixels import from_uint8

ROUNDING = 1e-5  # squared distances below it are 0: a single step of 1/127.5 in one pixel has 6e-5
BLOCK_VALUES = 1 << 22  # of the set are float64 at once, at most: 32 MiB


@dataclass(frozen=True)
class LossFloor:
    """The floor at each of K ``times``, in the unit of the loss: ``values`` and their standard ``errors`` over images.

    ``of_images`` is the mean over times of each image that was asked for: those whose training loss is followed.
    """

    times: tuple[int, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    of_images: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The floor of the mean over the times."""
        return fmean(self.of_images)


def least_errors(
    images: Tensor,
    index: Tensor,
    eps: Tensor,
    snr: Sequence[float],
    labels: Tensor | None = None,
    mirrored: bool = False,
    block: int = 1024,
) -> Tensor:
    """Unbiased estimates of E tr Cov[x_0 | x_t] / D from Q queries, at K signal-to-noise ratios: float64 [Q, K].

    ``images`` uint8 [N, C, H, W] is the whole set, of which at most ``block`` are read at a time; ``index`` int64 [Q]
    are the images that the queries are made from, drawn with equal probability, ``eps`` [Q, C, H, W] is their noise.
    With ``labels`` int64 [N] the posterior knows the label; where the set is ``mirrored`` it is over every image and
    its mirror image. (Queries need no mirroring: the mirror image of one has the same error.) Results are on the CPU.
    """
    y, noise = _flat(images[index]), eps.flatten(1).double()
    squares, along = y.square().sum(1, keepdim=True), (noise * y).sum(1, keepdim=True)
    totals = y.new_zeros(2, len(y), len(snr))  # sums of the weights, and of the weighted squared distances
    size = max(1, min(block, BLOCK_VALUES // y.shape[1]))
    for first in range(0, len(images), size):
        part = images[first : first + size]
        same = None if labels is None else labels[index][:, None] == labels[first : first + size]
        for rows in (_flat(part), _flat(part.flip(-1))) if mirrored else (_flat(part),):
            distances = threshold(squares + rows.square().sum(1) - 2 * y @ rows.mT, ROUNDING, 0.0)  # [Q, B]
            towards = along - noise @ rows.mT
            for place, ratio in enumerate(snr):
                weights = (distances * (-ratio / 2)).sub_(towards, alpha=math.sqrt(ratio)).exp_()
                weights = weights if same is None else weights.mul_(same)
                totals[:, :, place] += torch.stack((weights.sum(1), (weights * distances).sum(1)))
    return totals[1] / totals[0] / (2 * y.shape[1])


def _flat(images: Tensor) -> Tensor:
    return from_uint8(images.flatten(1), torch.float64)
