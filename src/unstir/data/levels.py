"""What a person should know of packed images, of a part of them that is spread evenly; the doctor looks at all."""

import math

import torch

from unstir.data.store import Store
from unstir.pixels import HALF
from unstir.progress import counted

# Thresholds; docs/doctor.md has what the data sets here measure.
NARROW = 32  # levels of 255 from the darkest value to the lightest
FAINT = 0.1  # standard deviation of the values in [-1, 1]; at 0.1 the SNR is 50 times less than for digits
SPREAD = "spread the values over 0..255 before packing (12 bits in files of 16: times 16; a mask of 0 and 1: times 255)"
_LOOKED_AT = 1 << 24  # bytes of images


def weakness(least: int, most: int, std: float) -> str:
    """What is wrong with images' range: ``least``, ``most`` in 0..255, ``std`` in units of [-1, 1]; "": nothing."""
    if most - least < NARROW:
        return "the images use a small part of the range"
    return "the images have hardly any contrast" if std < FAINT else ""


def remarks(store: Store) -> list[str]:
    """What a person should know of packed images, a sentence each: its notes, and what is found in its values."""
    images, lines = store.images("train"), list(map(str, store.notes))
    if not len(images):
        return lines
    images = images[:: -(-len(images) // max(1, _LOOKED_AT // math.prod(store.shape)))]
    if (scale := store.scale).is_float:
        ends = ", ".join(f"{low:.4g}..{high:.4g}" for low, high in zip(scale.low, scale.high, strict=True))
        missing = images.isnan().double().mean().item()
        return [*lines, f"values are float32; -1..1 is {ends}, by channel; {missing:.1%} are missing"]
    if store.shape[0] == 3 and (images == images[:, :1]).all():
        lines.append("the images are grey, packed as RGB; with 1 channel they take a third of the size")
    levels, at = torch.bincount(images.flatten(), minlength=256).double(), torch.arange(256.0, dtype=torch.float64)
    mean, seen = levels @ at / levels.sum(), levels.nonzero()
    least, most = int(seen.min()), int(seen.max())
    std = math.sqrt(levels @ (at - mean).square() / levels.sum()) / HALF
    if weak := weakness(least, most, std):
        values = f"the values of {counted(len(images), 'training image')} lie in {least}..{most} of 0..255"
        lines.append(f"{weak}: {values}, deviation {std:.3f} in [-1, 1]; {SPREAD}, and pack anew")
    return lines
