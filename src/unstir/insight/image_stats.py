"""One pass over a store: the range of its values, copies and leaks; and the errors of networks that know nothing."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unstir.data import SPLITS, Store
from unstir.pixels import HALF, Scale
from unstir.progress import counting
from unstir.runs import build
from unstir.runs.run import Run

BLOCK = 1 << 24  # bytes read at once


@dataclass(frozen=True)
class ImageStats:
    """What one pass over a store's images finds, in the training split unless ``held_out`` is named.

    ``mean`` and ``std`` are over all values, in the units of training, [-1, 1]; ``least`` and ``most`` in 0..255.
    ``copies`` counts images equal to an earlier one byte by byte, ``leaked`` held-out images that are in the training
    split too.
    """

    num: int
    held_out: int
    mean: float
    std: float
    least: int
    most: int
    copies: int
    leaked: int


def image_stats(store: Store) -> ImageStats:
    """The `ImageStats` of all images of ``store``.

    Equal images are found by a 64-bit hash of their bytes, which any two of ten million others share with a probability
    of 3e-6.
    """
    size = math.prod(store.shape)
    num, held_out = (store.count(split) for split in SPLITS)
    done, values, sums, squares, least, most = 0, 0, 0.0, 0.0, 255, 0
    hashes = np.empty(num + held_out, np.uint64)
    with counting("reading the data", "images") as count:
        for split in SPLITS:
            for images in torch.split(store.images(split), max(1, BLOCK // size)):
                digests = (hashlib.blake2b(image, digest_size=8).digest() for image in images.numpy())
                hashes[done : done + len(images)] = np.frombuffer(b"".join(digests), np.uint64)
                done += len(images)
                if split == "train":
                    levels = _levels(images, store.scale)
                    values += len(levels)
                    sums, squares = sums + levels.sum().item(), squares + levels.square().sum().item()
                    least, most = min(least, round(levels.min().item())), max(most, round(levels.max().item()))
                count(done, num + held_out)
    mean = sums / max(values, 1)
    std = math.sqrt(max(squares / max(values, 1) - mean**2, 0.0))
    seen = np.unique(hashes[:num])
    copies, leaked = num - len(seen), int(np.isin(hashes[num:], seen).sum())
    return ImageStats(num, held_out, mean / HALF - 1, std / HALF, least, most, copies, leaked)


def _levels(images: Tensor, scale: Scale) -> Tensor:
    """The values of images that are there, 0..255 for -1..1: int64 or float64 [V]."""
    if not scale.is_float:
        return images.flatten().long()
    levels = (scale.to_model(images).double() + 1) * HALF
    return levels[~levels.isnan()]


def learns_nothing(run: Run, mean: float, std: float) -> float:
    """The squared error of the best denoiser that knows only the mean and variance of all values, as a log has it.

    With x_0 ~ N(mean, std^2), V = Var(x_0 | x_t) = std^2 sigma^2 / (alpha^2 std^2 + sigma^2); the error is V of the
    image, alpha^2 / sigma^2 V of the noise and V / sigma^2 of the velocity, each a linear function of x_0 given x_t.
    """
    a, s = _squares(run)
    var = std**2 * s / (a * std**2 + s)
    return _logged_mean(run, {"x0": var, "eps": a / s * var, "v": var / s}[run.config.diffusion.predict])


def outputs_nothing(run: Run, mean: float, std: float) -> float:
    """E[target^2], the squared error of a network whose output is 0, as that of its initial weights is."""
    power = mean**2 + std**2
    a, s = _squares(run)
    return {"x0": power, "eps": 1.0, "v": _logged_mean(run, a + s * power)}[run.config.diffusion.predict]


def _logged_mean(run: Run, errors: Tensor) -> float:
    """The mean of ``errors`` at t = 1..T, float64 [T], as metrics.jsonl has it: by loss.times, or all times alike."""
    density = build.times(run.config, torch.device("cpu"))
    return (errors.mean() if density is None else density.p @ errors).item()


def _squares(run: Run) -> tuple[Tensor, Tensor]:
    """alpha_t^2 and sigma_t^2 at t = 1..T, float64."""
    log_abar = build.schedule(run.config.diffusion).log_abar[1:]
    return log_abar.exp(), -log_abar.expm1()
