"""What is computed once and kept in a store's folder, above all the features of its own images, in STORE/statistics.

What is generated is measured against these, and so is what bounds a distance: images of the other split, and noise. A
file is safetensors, with a text that says what decided the tensors and a hash of its content in the metadata; it is
read again only where it is whole. Of features it holds those of one split, number of images and network.
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from unstir import randomness
from unstir.data import SPLITS, Store
from unstir.errors import UserError
from unstir.metrics.distances import Moments, moments, radii
from unstir.metrics.features import Network
from unstir.pixels import from_uint8
from unstir.randomness import Key
from unstir.runs.checkpoint import content_hash, read_tensors
from unstir.runs.files import make_folder, replacing

VERSION = 1
NOISE = "noise"
KEPT = 10_000  # images of which features are kept with the moments of all, to compare image with image; at most
_NOISE_IMAGES = 1024  # so far from anything real that their number hardly matters

NOT_KEPT = (OSError, SafetensorError, ValueError, OverflowError, KeyError, TypeError, RuntimeError, AttributeError)
"""What reading a file may raise that is not what `keep` wrote, whatever it is."""


def keep(path: Path, kind: str, text: str, tensors: Mapping[str, Tensor]) -> None:
    """Replace the file; OSError where it cannot be written."""
    # the bytes are made first, for safetensors' own writing leaves files behind when killed
    data = save(dict(tensors), {f"unstir_{kind}": text, "sha256": content_hash(tensors, text)})
    make_folder(path.parent)
    with replacing(path) as partial:
        partial.write_bytes(data)


def kept(path: Path, kind: str) -> tuple[str, dict[str, Tensor]]:
    """The text and the tensors of a file. Raises one of `NOT_KEPT` for anything else than `keep` wrote."""
    metadata, views = read_tensors(path)
    tensors, text = {name: view.clone() for name, view in views.items()}, metadata[f"unstir_{kind}"]
    if metadata["sha256"] != content_hash(tensors, text):
        raise ValueError(f"{path} is damaged")
    return text, tensors


@dataclass(frozen=True, eq=False)
class Reference:
    """``moments`` of the features of n images, and the features of the first ``KEPT`` of them in random order.

    ``known`` is what `distances.kid` keeps of them, since many sets are held against one reference.
    """

    moments: Moments
    features: Tensor
    known: dict[tuple[int, int, int], list[float]] = field(default_factory=dict, init=False, repr=False)
    _radii: dict[int, list[Tensor]] = field(default_factory=dict, init=False, repr=False)

    def subsets(self, size: int, most: int) -> list[tuple[Tensor, Tensor]]:
        """``most`` disjoint subsets of ``size`` features, or all there are, with their `radii`, computed once."""
        num = min(len(self.features) // size, most)
        subsets = self.features[: num * size].view(num, size, -1)
        known = self._radii.setdefault(size, [])
        known += [radii(some) for some in subsets[len(known) :]]
        return list(zip(subsets, known, strict=False))


def reference(store: Store, part: str, network: Network, num: int = 0) -> Reference:
    """Features of ``num`` images (0: all) of "train", "held_out" or "noise"; UserError for others, or below 2."""
    total = _NOISE_IMAGES if part == NOISE else store.count(part)
    num = min(num or total, total)
    if num < 2:
        raise UserError("", store.path, f"has {total} {part} images, too few to compare with", "use another split")
    identity = {"version": VERSION, "data": store.content_hash, "network": network.hash, "part": part, "num": num}
    path = store.path / "statistics" / f"{network.name}-{network.hash[:12]}-{part}-{num}.safetensors"
    text = json.dumps(identity, sort_keys=True)
    with suppress(*NOT_KEPT):
        found, tensors = kept(path, "statistics")
        features, mean, covariance = each = [tensors[name] for name in ("features", "mean", "covariance")]
        shapes = [(min(num, KEPT), len(mean)), (len(mean),), (len(mean), len(mean))]
        kinds = list(zip(shapes, (torch.float32, torch.float64, torch.float64), strict=True))
        if found == text and kinds == [(tuple(tensor.shape), tensor.dtype) for tensor in each]:
            return Reference(Moments(mean, covariance, num), features.double())
    images = noise_images(store, num) if part == NOISE else store.images(part)
    features = network.outputs(images, chosen(part, len(images), num)).features
    single, of_all = features[:KEPT].float(), moments(features)
    with suppress(OSError):  # a store that cannot be written to is measured anew each time
        keep(path, "statistics", text, {"features": single, "mean": of_all.mean, "covariance": of_all.covariance})
    return Reference(of_all, single.double())


def chosen(part: str, total: int, num: int) -> Tensor:
    """Which ``num`` of the ``total`` images of a part a reference is of, in the order of its features: int64 [num]."""
    return randomness.Order(0, f"reference {part}", 0, total)[:num]


def other_split(split: str) -> str:
    """The split that is not ``split``."""
    return SPLITS[1 - SPLITS.index(split)]


def noise_images(store: Store, num: int) -> Tensor:
    """Images of which every byte is equally likely, as the store has images: uint8 or float32 [num, C, H, W]."""
    size = math.prod(store.shape)
    numbers = randomness.bits(Key(0, "noise images", 0, torch.arange(num)), (size + 7) // 8)
    return store.scale.to_units(from_uint8(numbers.view(torch.uint8)[:, :size].reshape(num, *store.shape)))
