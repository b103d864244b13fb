"""How near a set of images is to a store's own, in the features of a classifier of the store's classes.

A distance means nothing alone, so each comes with two others of the same features: the *floor*, that of real images
which are not in the reference, and the *ceiling*, that of images of uniform noise. A perfect model reaches the floor,
not 0; a distance below the floor is nearer than new images can be, as copies are. Beside the training split the floor
is higher than chance alone makes it, for the classifier knows the images of that split.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import SPLITS, Store
from unstir.errors import UserError
from unstir.metrics.classifier import Classifier, classifier_for
from unstir.metrics.frechet import Moments, bootstrap, frechet, moments
from unstir.randomness import Key

NOISE_IMAGES = 1024  # so far from anything real that their number hardly matters

_references: dict[tuple[str, str, str, int], tuple[Moments, float]] = {}


@dataclass(frozen=True, kw_only=True)
class Quality:
    """FD-classifier of ``num`` images to all ``num_reference`` images of ``split``, with what it is to be held against.

    ``standard_error`` is that of ``distance`` from the choice of images (bootstrap). ``floor`` is the distance of
    ``num_floor`` real images of the other split, as many as ``num`` where it holds so many; None where it holds fewer
    than two. ``ceiling`` is that of uniform noise. ``counts`` says how many images the classifier takes for each class
    in order; ``accuracy`` the fraction of images taken for the class asked for, None where none was told, and
    ``real_accuracy`` the same of held-out images. ``classifier`` is the hash of its weights, ``data`` the store's.
    """

    distance: float
    standard_error: float
    num: int
    split: str
    num_reference: int
    floor: float | None
    num_floor: int
    ceiling: float
    counts: tuple[int, ...]
    accuracy: float | None
    real_accuracy: float | None
    classifier: str
    data: str


def fd_classifier(
    store: Store,
    images: Tensor,
    *,
    labels: Tensor | None = None,
    split: str = "train",
    classifier: Classifier | None = None,
    seed: int = 0,
) -> Quality:
    """Measure ``images``, uint8 [N, C, H, W] in 0..255, against all images of ``split`` ("train" or "held_out").

    ``labels``, int64 [N], are the classes the images were asked to show. ``classifier`` is by default the store's own
    (`classifier_for`: trained at the first call). ``seed`` picks the images of the floor, the noise of the ceiling and
    the resampling. Raises UserError for a store without labels, images of another shape, fewer than two of them, or a
    split that is unknown or empty.
    """
    if split not in SPLITS:
        raise UserError(f"split={split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if store.count(split) < 2:
        raise UserError(f"{store.path} has {store.count(split)} {split} images, too few to compare with; use another")
    if labels is not None and labels.shape != (len(images),):
        raise UserError(f"labels are {list(labels.shape)} for {len(images)} images; give one for each")
    classifier = classifier or classifier_for(store)
    features = classifier.features(images)
    found = moments(features)
    reference, ceiling = _reference(store, split, classifier, seed)
    taken_for = classifier.probabilities(images).argmax(1)
    floor, num_floor = _floor(store, split, classifier, reference, len(images), seed)
    return Quality(
        distance=frechet(found, reference),
        standard_error=bootstrap(features, reference, seed=seed),
        num=len(images),
        split=split,
        num_reference=reference.n,
        floor=floor,
        num_floor=num_floor,
        ceiling=ceiling,
        counts=tuple(torch.bincount(taken_for, minlength=len(store.classes)).tolist()),
        accuracy=None if labels is None else (taken_for == labels.cpu()).double().mean().item(),
        real_accuracy=classifier.accuracy,
        classifier=classifier.hash,
        data=store.content_hash,
    )


def describe(result: Quality) -> str:
    """A result in a line, with how it came about."""
    fewer = f" of {result.num_floor} images" if result.num_floor != result.num else ""
    floor = "no other real images" if result.floor is None else f"real images{fewer} {result.floor:.4g}"
    shown = sum(count > 0 for count in result.counts)
    right = "" if result.accuracy is None else f", {result.accuracy:.1%} of the class asked for"
    return (
        f"FD-classifier {result.distance:.4g} +- {result.standard_error:.2g} ({floor}, noise {result.ceiling:.4g}); "
        f"{result.num} images against {result.num_reference} of {result.split}, {shown} of {len(result.counts)} "
        f"classes{right}; classifier {result.classifier[:12]}"
    )


def _reference(store: Store, split: str, classifier: Classifier, seed: int) -> tuple[Moments, float]:
    """The moments of a split and the distance of noise to them; computed once a process."""
    key = (store.content_hash, classifier.hash, split, seed)
    if key not in _references:
        reference = moments(classifier.features(store.images(split)))
        noise = moments(classifier.features(_noise(store.shape, seed)))
        _references[key] = (reference, frechet(noise, reference))
    return _references[key]


def _floor(
    store: Store, split: str, classifier: Classifier, reference: Moments, num: int, seed: int
) -> tuple[float | None, int]:
    """The distance of ``num`` images of the other split, or of all it has, to the reference; and their number."""
    other = SPLITS[1 - SPLITS.index(split)]
    index = randomness.permutation(seed, "floor", 0, store.count(other))[:num].sort().values
    if len(index) < 2:
        return None, 0
    return frechet(moments(classifier.features(store.images(other)[index])), reference), len(index)


def _noise(shape: tuple[int, int, int], seed: int) -> Tensor:
    """Images of which every byte is equally likely: uint8 [NOISE_IMAGES, C, H, W]."""
    size = shape[0] * shape[1] * shape[2]
    numbers = randomness.bits(Key(seed, "noise images", 0, torch.arange(NOISE_IMAGES)), (size + 7) // 8)
    return numbers.view(torch.uint8)[:, :size].reshape(NOISE_IMAGES, *shape)
