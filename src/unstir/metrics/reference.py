"""The features of a store's own images, computed once and kept with it, in STORE/statistics.

What is generated is measured against them, and so is what bounds a distance: images of the other split, and noise. A
file is good for one split, number of images and network; the hash of the network's weights is in its name.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unstir import randomness
from unstir.data import SPLITS, Store
from unstir.errors import UserError
from unstir.metrics.features import Network
from unstir.metrics.frechet import Moments, moments
from unstir.progress import Progress
from unstir.randomness import Key
from unstir.runs.checkpoint import content_hash, read_tensors
from unstir.runs.files import make_folder, replacing

VERSION = 1
NOISE = "noise"
KEPT = 10_000
"""Features of at most so many images are kept beside the moments of all: what compares image with image needs them."""

_KINDS = {"features": torch.float32, "mean": torch.float64, "covariance": torch.float64}
_NOISE_IMAGES = 1024  # so far from anything real that their number hardly matters


@dataclass(frozen=True, eq=False)
class Reference:
    """``moments`` of the features of n images, and the features of the first ``KEPT`` of them in random order."""

    moments: Moments
    features: Tensor

    @property
    def n(self) -> int:
        """How many images they are of."""
        return self.moments.n


def reference(store: Store, part: str, network: Network, num: int = 0, progress: Progress | None = None) -> Reference:
    """The features of ``num`` images (0: all) of ``part``: "train", "held_out", or "noise" of the store's shape.

    Which images these are does not depend on anything but their number. Raises UserError for an unknown part or fewer
    than two images.
    """
    total = _NOISE_IMAGES if part == NOISE else store.count(part)
    num = min(num or total, total)
    if num < 2:
        raise UserError(f"{store.path} has {total} {part} images, too few to compare with; use another split")
    identity = {"version": VERSION, "data": store.content_hash, "network": network.hash, "part": part, "num": num}
    path = store.path / "statistics" / f"{network.name}-{network.hash[:12]}-{part}-{num}.safetensors"
    if (kept := _load(path, identity)) is not None:
        return kept
    images = noise_images(store.shape, num) if part == NOISE else store.images(part)
    features = network.outputs(images, chosen(part, len(images), num), progress=progress).features
    made = Reference(moments(features), features[:KEPT].float().double())
    with suppress(UserError):  # a store that cannot be written to is measured anew each time
        _save(path, made, identity)
    return made


def chosen(part: str, total: int, num: int) -> Tensor:
    """Which ``num`` of the ``total`` images of a part a reference is of, in the order of its features: int64 [num]."""
    return randomness.permutation(0, f"reference {part}", 0, total)[:num]


def other_split(split: str) -> str:
    """The split that is not ``split``."""
    return SPLITS[1 - SPLITS.index(split)]


def noise_images(shape: tuple[int, int, int], num: int) -> Tensor:
    """Images of which every byte is equally likely: uint8 [num, C, H, W]."""
    size = shape[0] * shape[1] * shape[2]
    numbers = randomness.bits(Key(0, "noise images", 0, torch.arange(num)), (size + 7) // 8)
    return numbers.view(torch.uint8)[:, :size].reshape(num, *shape)


def _save(path: Path, made: Reference, identity: dict[str, object]) -> None:
    make_folder(path.parent)
    tensors = {
        "features": made.features.float(),
        "mean": made.moments.mean,
        "covariance": made.moments.covariance,
    }
    text = json.dumps(identity, sort_keys=True)
    with replacing(path) as partial:
        save_file(tensors, partial, {"unstir_statistics": text, "sha256": content_hash(tensors, text)})


def _load(path: Path, identity: dict[str, object]) -> Reference | None:
    """What `_save` wrote for this identity, whole; else None."""
    text = json.dumps(identity, sort_keys=True)
    try:
        metadata, views = read_tensors(path)
        tensors = {name: view.clone() for name, view in views.items()}
        if metadata.get("unstir_statistics") != text or metadata.get("sha256") != content_hash(tensors, text):
            return None
        n = identity["num"]
        assert isinstance(n, int)
        kept, width = tensors["features"].shape
        if kept != min(n, KEPT) or tensors["mean"].shape != (width,) or tensors["covariance"].shape != (width, width):
            return None
        if any(t.dtype != dtype for t, dtype in zip(map(tensors.__getitem__, _KINDS), _KINDS.values(), strict=True)):
            return None
        return Reference(Moments(tensors["mean"], tensors["covariance"], n), tensors["features"].double())
    except (OSError, SafetensorError, KeyError, ValueError, OverflowError, TypeError, RuntimeError):
        return None
