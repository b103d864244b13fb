"""How near sets of images are to a store's own: every figure beside its floor and its ceiling.

A distance means nothing alone, so each comes with two others of the same features: the *floor*, that of real images
which are not in the reference, and the *ceiling*, that of images of uniform noise. A perfect model reaches the floor,
not 0; a distance below the floor is nearer than new images can be, as copies are. Beside the training split the floor
of a classifier's features is higher than chance alone makes it, for the classifier knows the images of that split.

Features are those of a classifier of the store's own labels (FD-classifier, KID-classifier), of Inception (FID, KID,
Inception Score) or of any other `Network`; images without labels have the sliced Wasserstein distance.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.errors import UserError
from unstir.metrics import distances, wasserstein
from unstir.metrics.classifier import Classifier
from unstir.metrics.evaluation import HIGHER, LOWER, Figure
from unstir.metrics.frechet import frechet_of, moments, standard_error
from unstir.metrics.inception import NAME, Inception
from unstir.metrics.reference import BATCH, NOISE, Network, Progress, Reference, noise_images, other_split, reference

KID_SUBSETS = 100
FEWEST = 8
"""Sets of fewer images have no neighbourhoods to speak of."""


@dataclass(frozen=True, eq=False)
class Sides:
    """What images are measured against in one network: the reference, other real images, and noise."""

    network: Network
    real: Reference
    floor: Reference | None
    ceiling: Reference


def sides(
    store: Store, network: Network, num: int, split: str, num_reference: int = 0, progress: Progress | None = None
) -> Sides:
    """The reference of ``num_reference`` images of ``split`` (0: all), and the bounds for sets of ``num`` images.

    The floor is of ``num`` images of the other split, or of all that it holds; None where these are too few.
    """
    real = reference(store, split, network, num_reference, progress)
    other = other_split(split)
    floor = reference(store, other, network, num, progress) if store.count(other) >= FEWEST else None
    return Sides(network, real, floor, reference(store, NOISE, network, num, progress))


def judge(
    store: Store,
    sets: Sequence[Tensor],
    networks: Sequence[Network],
    *,
    split: str = "train",
    num_reference: int = 0,
    labels: Sequence[Tensor] | None = None,
    progress: Progress | None = None,
) -> dict[str, Figure]:
    """The figures of ``sets``, each uint8 [N, C, H, W] of equal N, one a seed, by key such as "classifier/fd".

    ``labels``, int64 [N] a set, are the classes that the images were asked to show. ``progress(done, total)`` counts
    the images of the set or reference at hand. Without any network the figure is the sliced Wasserstein distance.
    Raises UserError for fewer than `FEWEST` images, images that are not of the store's shape, or an empty split.
    """
    for images in sets:
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != store.shape or len(images) < FEWEST:
            raise UserError(
                f"images are {str(images.dtype).removeprefix('torch.')} {list(images.shape)}; {store.path} needs uint8 "
                f"[N, {', '.join(map(str, store.shape))}] with N >= {FEWEST}"
            )
    found: dict[str, Figure] = {}
    for network in networks:
        of = sides(store, network, len(sets[0]), split, num_reference, progress)
        looks = [_look(network, images, progress) for images in sets]
        found |= _of_network(of, [features for features, _ in looks])
        if isinstance(network, Classifier):
            found |= _of_classes(store, network, sets, split, labels)
        if isinstance(network, Inception):
            scores = tuple(distances.inception_score(logits) for _, logits in looks if logits is not None)
            found[f"{NAME}/is"] = _plain(network, "Inception Score", HIGHER, scores)
    return found or {"patches/swd": _of_patches(store, sets, split)}


def _look(network: Network, images: Tensor, progress: Progress | None) -> tuple[Tensor, Tensor | None]:
    """The features of a set of images, and the logits of a network that has them from the same pass."""
    if isinstance(network, Inception):
        looked = network.look(images, progress=progress)
        return looked.features, looked.logits
    parts = []
    for batch in torch.split(images, BATCH):
        parts.append(network.features(batch))
        if progress is not None:
            progress(sum(map(len, parts)), len(images))
    return torch.cat(parts), None


def _plain(network: Network, name: str, better: str, by_seed: tuple[float, ...]) -> Figure:
    """A figure that has no reference."""
    return Figure(name=name, better=better, by_seed=by_seed, network=network.name, network_hash=network.hash)


def _of_classes(
    store: Store, network: Classifier, sets: Sequence[Tensor], split: str, labels: Sequence[Tensor] | None
) -> dict[str, Figure]:
    """How often an image shows the class asked for, and how far the shares of classes are from the store's.

    The second is the total variation distance, 0 for equal shares and 1 for images of none of the right classes; its
    floor is that of real images, as the classifier sees them.
    """
    taken_for = [network.probabilities(images).argmax(1) for images in sets]
    real = store.labels(split)
    assert real is not None
    share = _shares(real, store)
    found = {}
    if labels is not None:
        right = tuple((t == asked.cpu()).double().mean().item() for t, asked in zip(taken_for, labels, strict=True))
        figure = _plain(network, "class accuracy", HIGHER, right)
        p = figure.value
        found["classifier/accuracy"] = dataclasses.replace(
            figure, bootstrap=(p * (1 - p) / len(sets[0])) ** 0.5, floor=network.accuracy, ceiling=1 / len(share)
        )
    distances_of = tuple((_shares(t, store) - share).abs().sum().item() / 2 for t in taken_for)
    figure = _plain(network, "class imbalance", LOWER, distances_of)
    other = store.images(other_split(split))[: len(sets[0])]
    floor = None
    if len(other) >= 2:
        floor = (_shares(network.probabilities(other).argmax(1), store) - share).abs().sum().item() / 2
    found["classifier/classes"] = dataclasses.replace(figure, floor=floor, num_floor=len(other))
    return found


def _shares(labels: Tensor, store: Store) -> Tensor:
    """The share of each class among labels, float64 [K]."""
    return torch.bincount(labels, minlength=len(store.classes)).double() / max(len(labels), 1)


def _of_patches(store: Store, sets: Sequence[Tensor], split: str) -> Figure:
    """The sliced Wasserstein distance to as many images of ``split``."""
    num = len(sets[0])
    real, other = (_some(store, part, num) for part in (split, other_split(split)))
    each = [wasserstein.swd(images, real, seed=seed) for seed, images in enumerate(sets)]
    if len(other) < FEWEST:  # nothing else is real: one half of the split against the other
        other, real = real[1::2], real[::2]
    floor = wasserstein.swd(other, real, seed=0)
    noise = noise_images(store.shape, min(num, len(real)))
    return Figure(
        name="sliced Wasserstein",
        better=LOWER,
        by_seed=tuple(found.mean for found in each),
        bootstrap=statistics.mean(found.standard_error for found in each),
        floor=floor.mean,
        floor_error=floor.standard_error,
        num_floor=len(other),
        ceiling=wasserstein.swd(noise, real, seed=0).mean,
        network="patches",
        num_reference=len(real),
    )


def _some(store: Store, part: str, num: int) -> Tensor:
    """At most ``num`` images of a split, the same at each call."""
    return store.images(part)[randomness.permutation(0, f"patches {part}", 0, store.count(part))[:num]]


def _of_network(of: Sides, sets: Sequence[Tensor]) -> dict[str, Figure]:
    """Distances and neighbourhoods in the features of one network."""
    values = [_measure(of, features) for features in sets]
    floor, floor_error, num_floor = _floor(of)
    ceiling = _measure(of, of.ceiling.features)
    n, plain = len(sets[0]), of.network.name == NAME
    spread_of = [standard_error(features, of.real.moments, seed=seed) for seed, features in enumerate(sets)]
    infinite = None
    if n >= distances.infinite_needs(sets[0].shape[1]):
        lines = [distances.infinite_fd(features, of.real.moments, seed) for seed, features in enumerate(sets)]
        spread = sum(error**2 for _, error in lines) ** 0.5 / len(lines)
        infinite = (statistics.mean(value for value, _ in lines), spread)
    found = {}
    for key, (name, better) in _NAMES.items():
        shown = {"fd": "FID", "kid": "KID"}.get(key, name) if plain else f"{name}-{of.network.name}"
        each = tuple(value[key] for value in values)
        share = statistics.mean(each)
        binomial = (share * (1 - share) / n) ** 0.5 if key in ("precision", "recall", "coverage") else None
        found[f"{of.network.name}/{key}"] = Figure(
            name=shown,
            better=better,
            by_seed=each,
            bootstrap=statistics.mean(spread_of) if key == "fd" else binomial,
            floor=floor[key],
            floor_error=floor_error if key == "fd" else None,
            num_floor=num_floor,
            ceiling=ceiling[key],
            infinite=infinite if key == "fd" else None,
            floor_infinite=_floor_infinite(of) if key == "fd" and infinite is not None else None,
            network=of.network.name,
            network_hash=of.network.hash,
            num_reference=of.real.n,
        )
    return found


def _floor_infinite(of: Sides) -> tuple[float, float] | None:
    """The distance of infinitely many real images; None where there are too few to tell."""
    if of.floor is None or len(of.floor.features) < distances.infinite_needs(of.floor.features.shape[1]):
        return None
    return distances.infinite_fd(of.floor.features, of.real.moments)


def _floor(of: Sides) -> tuple[dict[str, float], float, int]:
    """Every figure of real images, the standard error of their distance, and how many they are.

    Where the other split has none, one half of the reference is held against the other.
    """
    if of.floor is None:
        half, features = of.real.features[::2], of.real.features[1::2]
        of = dataclasses.replace(of, real=Reference(moments(half), half))
    else:
        features = of.floor.features
    return _measure(of, features), standard_error(features, of.real.moments), len(features)


_NAMES = {
    "fd": ("FD", LOWER),
    "kid": ("KID", LOWER),
    "precision": ("precision", HIGHER),
    "recall": ("recall", HIGHER),
    "density": ("density", HIGHER),
    "coverage": ("coverage", HIGHER),
}


def _measure(of: Sides, features: Tensor) -> dict[str, float]:
    """Every figure of one set of features [N, F]; neighbourhoods are those of as many real images."""
    real = of.real.features
    equal = real[: len(features)]
    size = min(1000, len(features), len(real))
    kid, _ = distances.kid(features, real, subsets=KID_SUBSETS, subset_size=size, seed=0)
    precision, recall = distances.precision_recall(equal, features)
    density, coverage = distances.density_coverage(equal, features)
    return {
        "fd": frechet_of(features, of.real.moments),
        "kid": kid,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }
