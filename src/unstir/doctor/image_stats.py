"""One pass over a store: the range of its values, flat images, copies, leaks, and near copies among some.

Near copies are one image kept many times with other noise, rounding or compression. Near does not mean copied: images
of one kind lie near each other by nature, arbitrarily near where they vary in few respects (one shape in many shades of
grey). Copies form groups with a gap around: they differ from each other by a few levels, and from every other image by
several times as much.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from unstir import randomness
from unstir.data import SPLITS, Store
from unstir.pixels import HALF
from unstir.runs import build
from unstir.runs.run import Run

NEAR = 8  # levels of 255 by which two copies differ at most, in any value; the nearest two of the digits are 48 apart
# No other image lies between NEAR and GAP times it: images of one kind, near by nature, have no such gap. Of random
# points in d dimensions the share that has a neighbour within a distance and none in the gap beyond it is at most 7%
# (d = 1), 1% (2) or 0.2% (3), whatever the distance.
GAP = 6
OF_CONTRAST = 1 / 8  # NEAR is at most this share of the std of all values, for faint images are all near each other
EXAMINED, AMONG = 256, 16_384  # images compared with others, all drawn at random: of a larger set pairs may be missed
MOST_COMPARED = 256  # images that one is compared with, the nearest by their means
BLOCK = 1 << 24  # bytes read at once


@dataclass(frozen=True)
class ImageStats:
    """What one pass over a store's images finds, in the training split unless ``held_out`` is named.

    ``mean`` and ``std`` are over all values, in the units of training, [-1, 1]; ``least`` and ``most`` in 0..255.
    ``flat`` counts images of one colour, ``copies`` those equal to an earlier one byte by byte, ``leaked`` held-out
    images that are in the training split too, ``near`` what `near_copies` says.
    """

    num: int
    held_out: int
    mean: float
    std: float
    least: int
    most: int
    flat: int
    copies: int
    leaked: int
    near: tuple[int, int]


def image_stats(store: Store, progress: Callable[[int, int], None]) -> ImageStats:
    """The `ImageStats` of all images of ``store``; ``progress(done, total)`` counts them.

    Equal images are found by a 64-bit hash of their bytes, so that memory holds 8 bytes per image; two of ten million
    others have the same one with a probability of 3e-6.
    """
    size = math.prod(store.shape)
    num, held_out = (store.count(split) for split in SPLITS)
    done, sums, squares, least, most, flat = 0, 0, 0, 255, 0, 0
    hashes = np.empty(num + held_out, np.uint64)
    for split in SPLITS:
        for images in torch.split(store.images(split), max(1, BLOCK // size)):
            digests = (hashlib.blake2b(image, digest_size=8).digest() for image in images.numpy())
            hashes[done : done + len(images)] = np.frombuffer(b"".join(digests), np.uint64)
            done += len(images)
            if split == "train":
                values, pixels = images.long(), images.flatten(2)
                sums, squares = sums + int(values.sum()), squares + int(values.square().sum())
                least, most = min(least, int(images.min())), max(most, int(images.max()))
                flat += int((pixels.amax(2) == pixels.amin(2)).all(1).sum())
            progress(done, num + held_out)
    mean = sums / max(num * size, 1)
    std = math.sqrt(max(squares / max(num * size, 1) - mean**2, 0.0))
    near, seen = near_copies(store.images("train"), std), np.unique(hashes[:num])
    copies, leaked = num - len(seen), int(np.isin(hashes[num:], seen).sum())
    return ImageStats(num, held_out, mean / HALF - 1, std / HALF, least, most, flat, copies, leaked, near)


def near_copies(images: Tensor, std: float) -> tuple[int, int]:
    """How many of ``images`` have a near copy, uint8 [N, C, H, W] of standard deviation ``std`` in levels; of how many.

    Equal images, and those whose own values span little more than the limit (one colour), are not counted. Each image
    examined is compared with those whose means agree: at most 256, the nearest.
    """
    limit = min(NEAR, OF_CONTRAST * std)
    among = randomness.Order(0, "doctor near", 0, len(images))[:AMONG]
    rows = max(1, BLOCK // math.prod(images.shape[1:]))
    means = torch.cat([grid_means(images[part]) for part in torch.split(among, rows)])
    apart = torch.cdist(means[:EXAMINED], means, p=torch.inf)
    least, nearest = apart.topk(min(MOST_COMPARED, len(among)), largest=False)
    count = 0
    for row, others, distances in zip(among.tolist(), nearest, least, strict=False):
        others = among[others[distances <= GAP * limit]]
        count += _copied(images[row], images[others[others != row]], limit)
    return count, len(apart)


def _copied(image: Tensor, others: Tensor, limit: float) -> bool:
    """Whether ``image`` [C, H, W] has an unequal one within ``limit`` among ``others`` and none just beyond it."""
    if not len(others) or int(image.max()) - int(image.min()) <= 2 * limit:
        return False
    apart = (others.int() - image.int()).abs().flatten(1).amax(1)
    near = apart <= limit
    return bool((near & (apart > 0)).any()) and not bool((~near & (apart <= GAP * limit)).any())


def grid_means(images: Tensor) -> Tensor:
    """Means over a 4 x 4 grid, which differ by no more than the images do: float32 [N, 16 C] of uint8 [N, C, H, W]."""
    return adaptive_avg_pool2d(images.float(), 4).flatten(1)


def learns_nothing(run: Run, mean: float, std: float) -> float:
    """The squared error of the best denoiser that knows only the mean and variance of all values, as a log has it.

    With x_0 ~ N(mean, std^2), V = Var(x_0 | x_t) = std^2 sigma^2 / (alpha^2 std^2 + sigma^2); the error is V of the
    image, alpha^2 / sigma^2 V of the noise and V / sigma^2 of the velocity, each a linear function of x_0 given x_t.
    """
    a, s = _squares(run)
    var = std**2 * s / (a * std**2 + s)
    return _logged_mean(run, {"x0": var, "eps": a / s * var, "v": var / s}[run.config.diffusion.predict])


def outputs_nothing(run: Run, mean: float, std: float) -> float:
    """The squared error of a network whose output is 0, as that of its initial weights is, as a log has it.

    E[target^2]: 1 for the noise, mean^2 + std^2 for the image, and their mixture for the velocity.
    """
    power = mean**2 + std**2
    a, s = _squares(run)
    return {"x0": power, "eps": 1.0, "v": _logged_mean(run, a + s * power)}[run.config.diffusion.predict]


def _logged_mean(run: Run, errors: Tensor) -> float:
    """The mean of ``errors`` at t = 1..T, float64 [T], over times as metrics.jsonl has it.

    Over the density that training draws times from; else over all times alike, for the log of times that are drawn by
    their losses is weighted to that mean.
    """
    density = build.times(run.config, torch.device("cpu"))
    return (errors.mean() if density is None else density.p @ errors).item()


def _squares(run: Run) -> tuple[Tensor, Tensor]:
    """alpha_t^2 and sigma_t^2 at t = 1..T, float64."""
    schedule = build.schedule(run.config.diffusion)
    of_times = ([of(t) for t in range(1, schedule.T + 1)] for of in (schedule.abar, schedule.sigma))
    abar, sigma = (torch.tensor(of, dtype=torch.float64) for of in of_times)
    return abar, sigma.square()
