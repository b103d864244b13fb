"""One pass over a store: the range of its values, flat images, copies, leaks, and near copies among some."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from unstir.data import SPLITS, Store
from unstir.doctor.near import Near, near_copies
from unstir.pixels import HALF

_BLOCK = 1 << 24  # bytes read at once


@dataclass(frozen=True)
class ImageStats:
    """What one pass over a store's images finds, in the training split unless ``held_out`` is named.

    ``mean`` and ``std`` are over all values, in the units of training, [-1, 1]; ``least`` and ``most`` in 0..255.
    ``flat`` counts images of one colour, ``copies`` those equal to an earlier one byte by byte, ``leaked`` held-out
    images that are in the training split too, ``near`` images with near copies in a subset.
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
    near: Near


def image_stats(store: Store, progress: Callable[[int, int], None]) -> ImageStats:
    """The `ImageStats` of all images of ``store``; ``progress(done, total)`` counts them.

    Equal images are found by a 128-bit hash of their bytes, so that memory holds 16 bytes per image.
    """
    size = math.prod(store.shape)
    num, held_out = (store.count(split) for split in SPLITS)
    done, sums, squares, least, most, flat, leaked = 0, 0, 0, 255, 0, 0, 0
    seen: set[bytes] = set()
    for split in SPLITS:
        for images in torch.split(store.images(split), max(1, _BLOCK // size)):
            hashes = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
            done += len(images)
            if split == "train":
                values, pixels = images.long(), images.flatten(2)
                sums, squares = sums + int(values.sum()), squares + int(values.square().sum())
                least, most = min(least, int(images.min())), max(most, int(images.max()))
                flat += int((pixels.amax(2) == pixels.amin(2)).all(1).sum())
                seen.update(hashes)
            else:
                leaked += sum(h in seen for h in hashes)
            progress(done, num + held_out)
    mean = sums / max(num * size, 1)
    std = math.sqrt(max(squares / max(num * size, 1) - mean**2, 0.0))
    return ImageStats(
        num=num,
        held_out=held_out,
        mean=mean / HALF - 1,
        std=std / HALF,
        least=least,
        most=most,
        flat=flat,
        copies=num - len(seen),
        leaked=leaked,
        near=near_copies(store.images("train"), std),
    )
