"""How near sets of images are to a store's own: every figure beside its floor and its ceiling.

A distance means nothing alone, so each comes with two others of the same features: the *floor*, that of real images
which are not in the reference, drawn as the generator draws (`floor`), and the *ceiling*, that of images of uniform
noise. A perfect model reaches the floor, not 0; a distance below the floor is nearer than new images can be, as copies
are. Beside the training split the floor of a classifier's features is higher than chance alone makes it, for the
classifier knows the images of that split; it knows neither samples nor held-out images, so that these compare.

Features are those of a classifier of the store's own labels (FD-classifier, KID-classifier), of Inception (FID, KID,
Inception Score) or of any other `Network`; images without labels have the sliced Wasserstein distance.
"""

import dataclasses
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.errors import UserError
from unstir.metrics import distances, wasserstein
from unstir.metrics.classifier import Classifier
from unstir.metrics.figures import HIGHER, LOWER, Figure
from unstir.metrics.floor import FEWEST, Draws, bound
from unstir.metrics.inception import NAME, Inception
from unstir.metrics.measures import FLOOR_SPLITS, SPLITS, draws_of, figures_of, halved, sides
from unstir.metrics.reference import BATCH, Network, Progress, chosen, noise_images, other_split

PATCHES = 2000
"""Of so many images the patches are compared with where nothing else is asked; 9 s of one core at 32x32."""


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
        of = sides(store, network, len(sets[0]), split, num_reference, progress, None if labels is None else labels[0])
        looks = [_look(network, images, progress) for images in sets]
        found |= figures_of(of, [features for features, _ in looks])
        if isinstance(network, Classifier):
            found |= _of_classes(store, network, sets, split, labels, of.draws)
        if isinstance(network, Inception):
            found[f"{NAME}/is"] = _inception_score(network, [logits for _, logits in looks if logits is not None])
    if not networks:
        num_reference = reference_size(store.count(split), num_reference, networks)
        found["patches/swd"] = _of_patches(store, sets, split, num_reference, labels)
    return found


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


def _inception_score(network: Inception, sets: Sequence[Tensor]) -> Figure:
    def score(logits: Tensor) -> float:
        return distances.inception_score(logits, splits=min(10, len(logits)))

    def error(logits: Tensor) -> float:
        return halved(lambda part: {"is": score(logits[part])}, len(logits))["is"]

    figure = _plain(network, "Inception Score", HIGHER, tuple(map(score, sets)))
    return dataclasses.replace(figure, bootstrap=statistics.mean(map(error, sets)))


def _plain(network: Network, name: str, better: str, by_seed: tuple[float, ...]) -> Figure:
    """A figure that has no reference."""
    return Figure(name=name, better=better, by_seed=by_seed, network=network.name, network_hash=network.hash)


def _of_classes(
    store: Store,
    network: Classifier,
    sets: Sequence[Tensor],
    split: str,
    labels: Sequence[Tensor] | None,
    draws: Draws | None,
) -> dict[str, Figure]:
    """How often an image shows the class asked for, and how far the shares of classes are from the store's.

    The second is the total variation distance, 0 for equal shares and 1 for images of none of the right classes; its
    floor is that of real images, as the classifier sees them, by `Sides.draws`.
    """
    taken_for = [network.probabilities(images).argmax(1) for images in sets]
    real = store.labels(split)
    assert real is not None
    share = _shares(real, store)
    found = {}
    if labels is not None:
        found["classifier/accuracy"] = _class_accuracy(network, taken_for, labels, len(share))

    def imbalance(taken_for: Tensor) -> float:
        return (_shares(taken_for, store) - share).abs().sum().item() / 2

    def error(taken_for: Tensor, strata: Tensor | None = None, splits: int = SPLITS) -> float:
        return halved(lambda part: {"classes": imbalance(taken_for[part])}, len(taken_for), strata, splits)["classes"]

    figure = _plain(network, "class imbalance", LOWER, tuple(map(imbalance, taken_for)))
    figure = dataclasses.replace(figure, bootstrap=statistics.mean(map(error, taken_for)))
    if draws is not None:
        other = other_split(split)
        real_images = store.images(other)[chosen(other, store.count(other), len(draws.classes))]
        of_real = network.probabilities(real_images).argmax(1)
        floor, floor_error = bound(
            draws,
            lambda index: {"classes": imbalance(of_real[index])},
            lambda index: {"classes": error(of_real[index], draws.classes[index], FLOOR_SPLITS)},
            squares=("classes",),
        )
        figure = dataclasses.replace(
            figure, floor=floor["classes"], floor_error=floor_error["classes"], num_floor=draws.num
        )
    found["classifier/classes"] = figure
    return found


def _class_accuracy(
    network: Classifier, taken_for: Sequence[Tensor], labels: Sequence[Tensor], num_classes: int
) -> Figure:
    """How often images are taken for the class asked for, beside the accuracy on held-out images and that of chance."""
    right = tuple((t == asked.cpu()).double().mean().item() for t, asked in zip(taken_for, labels, strict=True))
    figure = _plain(network, "class accuracy", HIGHER, right)
    error = (figure.value * (1 - figure.value) / len(taken_for[0])) ** 0.5
    return dataclasses.replace(figure, bootstrap=error, floor=network.accuracy, ceiling=1 / num_classes)


def _shares(labels: Tensor, store: Store) -> Tensor:
    """The share of each class among labels, float64 [K]."""
    return torch.bincount(labels, minlength=len(store.classes)).double() / max(len(labels), 1)


def reference_size(count: int, asked: int, networks: Sequence[Network]) -> int:
    """How many of ``count`` images are the reference if ``asked`` are wished for; 0: all, or `PATCHES` for patches."""
    return min(asked or (count if networks else PATCHES), count)


def _of_patches(
    store: Store, sets: Sequence[Tensor], split: str, num_reference: int, labels: Sequence[Tensor] | None
) -> Figure:
    """The sliced Wasserstein distance to ``num_reference`` images of ``split``; its floor is one set of real images."""
    num, part = len(sets[0]), other_split(split)
    real = _some(store, split, num_reference)
    each = [wasserstein.swd(images, real, seed=seed) for seed, images in enumerate(sets)]
    draws = draws_of(store, part, num, None if labels is None else labels[0])
    if draws is not None:
        index = chosen(part, store.count(part), len(draws.classes))[(draws.chance or draws.sets)[0]]
        other, rest, num_floor = store.images(part)[index], real, len(index)
    else:  # nothing else is real: some of the reference against the rest of it
        cut = min(num, len(real) // 2)
        other, rest, num_floor = real[:cut], real[cut:], 0
    floor = wasserstein.swd(other, rest, seed=0)
    return Figure(
        name="sliced Wasserstein",
        better=LOWER,
        by_seed=tuple(found.mean for found in each),
        bootstrap=statistics.mean(found.standard_error for found in each),
        floor=floor.mean,
        floor_error=floor.standard_error,
        num_floor=num_floor,
        ceiling=wasserstein.swd(noise_images(store.shape, num), real, seed=0).mean,
        network="patches",
        num_reference=len(real),
    )


def _some(store: Store, part: str, num: int) -> Tensor:
    """At most ``num`` images of a split, the same at each call and of all its parts."""
    return store.images(part)[randomness.permutation(0, f"some {part}", 0, store.count(part))[:num]]
