"""Whether packed images use the range 0..255, and whether images packed as RGB are grey: what a person may not see.

The rule and its remedy are the doctor's too. Here a part of the images is looked at, spread evenly over them, so that
it takes a moment whatever the size of the store; the doctor looks at all.
"""

import math

import torch

from unstir.data.store import Store
from unstir.pixels import HALF
from unstir.progress import counted

# Thresholds; docs/doctor.md has what the data sets here measure.
NARROW = 32  # levels of 255 from the darkest value to the lightest
FAINT = 0.1  # standard deviation of the values in [-1, 1]; at 0.1 the SNR is 50 times less than for digits
SPREAD = "spread the values over 0..255 before packing (12 bits in files of 16: times 16; a mask of 0 and 1: times 255)"
LOOKED_AT = 1 << 24  # bytes of images


def weakness(least: int, most: int, std: float) -> str:
    """What is wrong with the range of all values of a set of images, "" where nothing is.

    ``least`` and ``most`` are in 0..255, ``std`` is the standard deviation in units of training, [-1, 1].
    """
    if most - least < NARROW:
        return "the images use a small part of the range"
    return "the images have hardly any contrast" if std < FAINT else ""


def of_range(store: Store) -> str:
    """One line for training images of which `weakness` finds something, with the remedy; "" for others."""
    images = _some(store)
    if not images.numel():
        return ""
    levels = torch.bincount(images.flatten(), minlength=256).double()
    at, found = torch.arange(256.0, dtype=torch.float64), levels.nonzero()
    least, most = int(found.min()), int(found.max())
    mean = levels @ at / levels.sum()
    std = math.sqrt(levels @ (at - mean).square() / levels.sum()) / HALF
    if not (says := weakness(least, most, std)):
        return ""
    values = (
        f"the values of {counted(len(images), 'training image')} lie in {least}..{most} of 0..255, deviation {std:.3f}"
    )
    return f"{says}: {values} in [-1, 1]; {SPREAD}, and pack anew"


def all_grey(store: Store) -> bool:
    """Whether training images packed as RGB are grey, each value three times."""
    images = _some(store)
    return store.shape[0] == 3 and len(images) > 0 and bool((images == images[:, :1]).all())


def _some(store: Store) -> torch.Tensor:
    """Training images spread evenly, uint8 [n, C, H, W], of at most `LOOKED_AT` bytes."""
    images = store.images("train")
    most = max(1, LOOKED_AT // math.prod(store.shape))
    return images[:: -(-len(images) // most)] if len(images) else images
