"""One pass over a store: the range of its values, flat images, copies, leaks, and near copies among some."""

import hashlib
import math
from collections.abc import Callable

import torch

from unstir.data import SPLITS, Store
from unstir.doctor.facts import ImageStats
from unstir.doctor.near import near_copies
from unstir.pixels import HALF

_BLOCK = 1 << 24  # bytes looked at at once


def image_stats(store: Store, progress: Callable[[int, int], None] | None = None) -> ImageStats:
    """What `ImageStats` says of all images of ``store``; ``progress(done, total)`` counts them.

    Equal images are found by a 128-bit hash of their bytes, so that memory holds 16 bytes an image.
    """
    size = math.prod(store.shape)
    rows = max(1, _BLOCK // size)
    total, done = sum(store.count(split) for split in SPLITS), 0
    sums, squares, least, most, flat, copies, leaked = 0, 0, 255, 0, 0, 0, 0
    seen: set[bytes] = set()
    for split in SPLITS:
        for images in torch.split(store.images(split), rows):
            hashes = [_hash(image.numpy().tobytes()) for image in images]
            done += len(images)
            if split == "train":
                values = images.long()
                sums, squares = sums + int(values.sum()), squares + int(values.square().sum())
                least, most = min(least, int(images.min())), max(most, int(images.max()))
                pixels = images.flatten(2)
                flat += int((pixels.amax(2) == pixels.amin(2)).all(1).sum())
                before = len(seen)
                seen.update(hashes)
                copies += len(hashes) - (len(seen) - before)
            else:
                leaked += sum(h in seen for h in hashes)
            if progress is not None:
                progress(done, total)
    num = store.count("train")
    mean = sums / max(num * size, 1)
    var = max(squares / max(num * size, 1) - mean**2, 0.0)
    return ImageStats(
        num=num,
        held_out=store.count("held_out"),
        mean=mean / HALF - 1,
        std=math.sqrt(var) / HALF,
        least=least,
        most=most,
        flat=flat,
        copies=copies,
        leaked=leaked,
        near=near_copies(store.images("train"), math.sqrt(var)),
    )


def _hash(image: bytes) -> bytes:
    return hashlib.blake2b(image, digest_size=16).digest()
