"""The sliced Wasserstein distance between the patches of two sets of images; it needs no weights and no labels.

Karras et al. 2018 ("Progressive Growing of GANs", section 5) compare images scale by scale. A Laplacian pyramid (Burt &
Adelson 1983) splits an image into details of each size; a level's small patches are the distribution compared. Along a
random direction (Rabin et al. 2011) the Wasserstein distance is the area between the two distribution functions,

    W_1(a, b) = integral |F_a(x) - F_b(x)| dx,

and the mean of W_1 over directions that are uniform on the sphere is the distance of a level.

A distance of 1000 is one standard deviation of a level's pixels, channel by channel, of both sets about their common
mean, each set counting half. (Karras et al. divide each set by its own, which hides a difference of contrast or colour
balance.) Few images bias it upwards, about as 1/sqrt(n): hold it against that of as many real images.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from unstir import randomness
from unstir.randomness import Key

PATCH = 7  # pixels per side of a patch (Karras et al. 2018); levels are halved as long as one fits
PATCHES, PROJECTIONS, REPEATS, SCALE = 32, 128, 20, 1000.0
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # the filter of Burt & Adelson 1983
_BATCH = 256


class Swd(NamedTuple):
    """The ``mean`` distance of all levels times 1000 (unit: see above), and its error from the choice of images."""

    mean: float
    standard_error: float


def swd(a: Tensor, b: Tensor, seed: int = 0, *, patches: int = PATCHES, projections: int = PROJECTIONS) -> Swd:
    """The distance between two sets of images, uint8 [N, C, H, W] in 0..255; symmetric, and 0 between equals.

    ``patches`` per image and level, and ``projections`` directions per level, are functions of ``seed`` alone, so that
    distances of one seed share them. The standard error is the deviation of the mean over `REPEATS` pairs of sets drawn
    from a and b with replacement, whole images at a time because the patches of an image are not independent (Efron
    1979).
    """
    both = zip(descriptors(a, seed=seed, patches=patches), descriptors(b, seed=seed, patches=patches), strict=True)
    weights = (_resampled(len(a), seed, "swd images"), _resampled(len(b), seed, "swd reference"))
    levels = [_level(*_normalised(*level), weights, seed, number, projections) for number, level in enumerate(both)]
    means = torch.stack(levels).mean(0)
    return Swd(means[0].item(), means[1:].std().item())


def descriptors(images: Tensor, *, seed: int = 0, patches: int = PATCHES) -> list[Tensor]:
    """The patches of each level, fine to coarse: float32 [N, P, C, k, k] in grey levels, k = PATCH or a smaller side.

    ``images`` are uint8 [N, C, H, W] in 0..255. P is ``patches`` at places drawn with replacement, the same for image
    i of any set; a level with no more places than that gives each once.
    """
    parts: list[list[Tensor]] = [[] for _ in _sides(*images.shape[2:])]
    for first in range(0, len(images), _BATCH):
        for number, level in enumerate(pyramid(images[first : first + _BATCH].float())):
            parts[number].append(_patches(level, first, patches, seed, number))
    return [torch.cat(part) for part in parts]


def pyramid(images: Tensor) -> list[Tensor]:
    """The Laplacian pyramid of float images [N, C, H, W], fine to coarse; the last level is the small image itself."""
    levels = []
    for _ in _sides(*images.shape[2:])[1:]:
        smaller = _smooth(images)[:, :, ::2, ::2]
        spread = torch.zeros_like(images)
        spread[:, :, ::2, ::2] = smaller
        levels.append(images - 4 * _smooth(spread))  # three of four pixels are 0
        images = smaller
    return [*levels, images]


def wasserstein(a: Tensor, b: Tensor, weights_a: Tensor, weights_b: Tensor) -> Tensor:
    """W_1 between two samples on a line under each of K weightings of the images they come from: float64 [K].

    ``a`` [N, P] holds P values of each of N images, ``b`` [M, Q] likewise. ``weights_a`` [K, N] and ``weights_b``
    [K, M] are whole numbers, float64: how often each image counts; all rows of one add up to the same. The sums are of
    whole numbers below 2^53, hence exact: equal samples are at the distance 0.
    """
    count_a, count_b = int(weights_a[0].sum()) * a.shape[1], int(weights_b[0].sum()) * b.shape[1]
    common = math.gcd(count_a, count_b)
    steps = torch.cat((weights_a * (count_b // common), weights_b * -(count_a // common)), dim=1)
    image = np.repeat(np.arange(len(a) + len(b)), [a.shape[1]] * len(a) + [b.shape[1]] * len(b))
    values = np.concatenate([a.numpy().ravel(), b.numpy().ravel()])
    order = np.argsort(values)  # NumPy's sort and take are several times faster than torch's
    difference = torch.from_numpy(np.take(steps.numpy(), image[order], axis=1))
    gaps = torch.from_numpy(np.diff(values[order].astype(np.float64)))
    return difference.cumsum_(1)[:, :-1].abs_() @ gaps / (count_a * count_b // common)


def _level(a: Tensor, b: Tensor, weights: tuple[Tensor, Tensor], seed: int, number: int, projections: int) -> Tensor:
    """The mean of W_1 over directions, of descriptors [N, P, D], under each weighting of images: float64 [K]."""
    directions = randomness.normal(Key(seed, "swd directions", number, torch.arange(projections)), (a.shape[2],))
    directions /= directions.norm(dim=1, keepdim=True)
    total = torch.zeros(len(weights[0]), dtype=torch.float64)
    for direction in directions:
        total += wasserstein(a @ direction, b @ direction, *weights)
    return total * (SCALE / projections)


def _normalised(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors [N, P, C, k, k] as [N, P, D], less the channels' common mean, over their common deviation."""
    (var_a, mean_a), (var_b, mean_b) = (torch.var_mean(x.double(), (0, 1, 3, 4), correction=0) for x in (a, b))
    deviation = ((var_a + var_b) / 2 + ((mean_a - mean_b) / 2) ** 2).sqrt()
    deviation[deviation == 0] = 1.0  # a channel that is constant in both
    mean, deviation = (each.float().view(-1, 1, 1) for each in ((mean_a + mean_b) / 2, deviation))
    return ((a - mean) / deviation).flatten(2), ((b - mean) / deviation).flatten(2)


def _resampled(n: int, seed: int, stream: str) -> Tensor:
    """How often each of n images counts: once in row 0, as often as it was drawn in the others; [1 + REPEATS, n]."""
    keys = [Key(seed, stream, repeat, torch.arange(n)) for repeat in range(REPEATS)]
    drawn = [torch.bincount(randomness.integers(key, 0, n - 1), minlength=n) for key in keys]
    return torch.stack([torch.ones_like(drawn[0]), *drawn]).double()


def _patches(level: Tensor, first: int, patches: int, seed: int, number: int) -> Tensor:
    """Patches of images numbered from ``first`` on, float32 [N, C, H, W] to [N, P, C, k, k]."""
    side = min(PATCH, *level.shape[2:])
    windows = level.unfold(2, side, 1).unfold(3, side, 1)  # a view: [N, C, rows, columns, k, k]
    N, _, rows, columns = windows.shape[:4]
    if rows * columns <= patches:
        places = torch.arange(rows * columns).expand(N, -1)
    else:
        slots = torch.arange(first * patches, (first + N) * patches)
        places = randomness.integers(Key(seed, "swd patches", number, slots), 0, rows * columns - 1).view(N, -1)
    return windows[torch.arange(N)[:, None], :, places // columns, places % columns]


def _sides(height: int, width: int) -> list[tuple[int, int]]:
    """The (height, width) of each level, halved (rounding up) as long as a patch fits."""
    sides = [(height, width)]
    while min(half := ((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2)) >= PATCH:
        sides.append(half)
    return sides


def _smooth(images: Tensor) -> Tensor:
    row = torch.tensor(_BINOMIAL, dtype=images.dtype).view(1, 1, 1, 5)
    padded = pad(images.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect")
    return conv2d(conv2d(padded, row), row.transpose(2, 3)).view_as(images)
