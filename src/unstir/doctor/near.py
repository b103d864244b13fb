"""Images that are nearly equal: one image kept many times with other noise, rounding or compression.

Near does not mean copied: images of one kind lie near each other by nature, arbitrarily near where they vary in few
respects (one shape in many shades of grey). Copies form groups with a gap around: they differ from each other by a
few levels, and from every other image by several times as much.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from unstir import randomness

NEAR = 8
"""Levels of 255 by which two copies differ at most, in any value. The nearest two of the digits are 48 apart."""

GAP = 6
"""No other image lies between `NEAR` and so many times it: images of one kind, near by nature, have no such gap.

Of random points in d dimensions the share that has a neighbour within a distance and none in the gap beyond it is at
most 7% (d = 1), 1% (2) or 0.2% (3), whatever the distance.
"""

OF_CONTRAST = 1 / 8
"""`NEAR` is at most this share of the standard deviation of all values, for faint images are all near each other."""

EXAMINED, AMONG = 256, 16_384
"""Images examined, and images that they are compared with, drawn at random: in a far larger set pairs may be missed."""

_SIDE, _MOST, _BLOCK = 4, 256, 1 << 24


@dataclass(frozen=True)
class Near:
    """Of ``num`` training images examined, ``count`` have a near copy that is not equal byte for byte."""

    count: int
    num: int


def near_copies(images: Tensor, std: float) -> Near:
    """Near copies among ``images``, uint8 [N, C, H, W], whose values have the standard deviation ``std`` in levels.

    Equal images, and those whose own values span little more than the limit (one colour), are not counted. Each image
    examined is compared with those whose means agree: at most 256, the nearest.
    """
    limit = min(NEAR, OF_CONTRAST * std)
    among = randomness.permutation(0, "doctor near", 0, len(images))[:AMONG]
    rows = max(1, _BLOCK // images[0].numel())
    means = torch.cat([grid_means(images[part]) for part in torch.split(among, rows)])
    apart = torch.cdist(means[:EXAMINED], means, p=torch.inf)
    least, nearest = apart.topk(min(_MOST, len(among)), largest=False)
    count = 0
    for row, others, distances in zip(among.tolist(), nearest, least, strict=False):
        others = among[others[distances <= GAP * limit]]
        count += _copied(images[row], images[others[others != row]], limit)
    return Near(count, len(apart))


def _copied(image: Tensor, others: Tensor, limit: float) -> bool:
    """Whether ``image`` [C, H, W] has an unequal one within ``limit`` among ``others`` and none just beyond it."""
    if not len(others) or int(image.max()) - int(image.min()) <= 2 * limit:
        return False
    apart = (others.int() - image.int()).abs().flatten(1).amax(1)
    near = apart <= limit
    return bool((near & (apart > 0)).any()) and not bool((~near & (apart <= GAP * limit)).any())


def grid_means(images: Tensor) -> Tensor:
    """Means over a 4 x 4 grid, which differ by no more than the images do: float32 [N, 16 C] of uint8 [N, C, H, W]."""
    return adaptive_avg_pool2d(images.float(), _SIDE).flatten(1)
