"""How near sets of images are to a store's own: every figure with its floor and its ceiling.

The *floor* is that of real images which are not in the reference (`feature_figures`), the *ceiling* that of images of
uniform noise. A distance below the floor is nearer than new images can be, as copies are.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.metrics import features, wasserstein
from unstir.metrics.distances import inception_score
from unstir.metrics.feature_figures import FEWEST, FLOOR_SPLITS, Sides, bound, draws_of, figures_of, sides
from unstir.metrics.features import Components, Network, Trust
from unstir.metrics.figures import HIGHER, LOWER, SPLITS, ClassCount, Figure, halved
from unstir.metrics.wasserstein import Swd
from unstir.significance import binomial_tail

SLICED = "sliced Wasserstein"
PATCHES = 2000  # images whose patches are the reference where nothing else is asked


def measure(
    store: Store,
    sets: Sequence[Tensor],
    networks: Sequence[Network],
    split: str = "train",
    num_reference: int = 0,
    labels: Sequence[Tensor] | None = None,
) -> dict[str, Figure]:
    """The figures of ``sets``, each uint8 [N, C, H, W] of equal N, one per seed, by key such as "classifier/fd".

    ``labels``, int64 [N] per set, are the classes that the images were asked to show. Without any network they are the
    sliced Wasserstein distance, or those of values in units of their own. Raises UserError for fewer than `FEWEST`
    images, images that are not of the store's shape, or an empty split.
    """
    for images in sets:
        features.check_images(images, store.shape, store.scale, store.path, FEWEST)
    sets = features.lacking(store, sets) if store.scale.is_float else sets
    labels = None if labels is None else [each.cpu() for each in labels]
    asked = None if labels is None else labels[0]
    if not networks:
        num_reference = reference_size(store.count(split), num_reference, networks)
        if store.scale.is_float:
            return _of_values(store, Components.of(store), sets, split, num_reference, asked)
        return {"patches/swd": _between(store, sets, split, num_reference, asked, SLICED, wasserstein.swd)}
    figures: dict[str, Figure] = {}
    for network in networks:
        of = sides(store, network, len(sets[0]), split, num_reference, asked)
        outputs = [network.outputs(images) for images in sets]
        figures |= figures_of(of, [each.features for each in outputs], labels)
        logits = [each.logits for each in outputs if each.logits is not None]
        if network.trust is not None:
            figures |= _of_classes(store, split, of, [each.argmax(1) for each in logits], labels)
        elif logits:
            figures[f"{network.name}/is"] = _inception_score(logits, labels)
        if isinstance(network, Components):
            figures |= _of_values(store, network, sets, split, reference_size(store.count(split), 0, ()), asked)
    return figures


def _of_values(
    store: Store, components: Components, sets: Sequence[Tensor], split: str, num_reference: int, asked: Tensor | None
) -> dict[str, Figure]:
    def of_patches(a: Tensor, b: Tensor, seed: int) -> Swd:
        return wasserstein.swd(components.scaled(a).float(), components.scaled(b).float(), seed)

    def halved_too(figure: Callable[[Tensor, Tensor], float]) -> Distance:
        return lambda a, b, seed: Swd(figure(a, b), halved(lambda i: {"": figure(a[i], b)}, len(a))[""])

    with_size = store, sets, split, num_reference, asked
    return {
        "patches/swd": _between(*with_size, SLICED, of_patches),
        "values/marginals": _between(*with_size, "marginals", halved_too(features.marginals)),
        "values/spread": _between(*with_size, "spread", halved_too(features.spread)),
    }


def _inception_score(sets: Sequence[Tensor], labels: Sequence[Tensor] | None) -> Figure:
    def error(logits: Tensor, strata: Tensor | None = None) -> float:
        return halved(lambda part: {"is": inception_score(logits[part])}, len(logits), strata)["is"]

    of_seed = mean(map(error, sets) if labels is None else map(error, sets, labels))
    by_seed = tuple(map(inception_score, sets))
    return Figure(name="Inception Score", better=HIGHER, by_seed=by_seed, bootstrap=of_seed)


def _of_classes(
    store: Store, split: str, of: Sides, taken_for: Sequence[Tensor], labels: Sequence[Tensor] | None
) -> dict[str, Figure]:
    """How often an image shows the class asked for, and how far the shares of classes are from the store's.

    ``taken_for``, int64 [N] per set, are the classes that the network sees. The second figure is the total variation
    distance, 0 for equal shares, 1 for none of the right classes; its floor is that of real images, seen likewise.
    """

    def shares(labels: Tensor) -> Tensor:
        return torch.bincount(labels, minlength=len(store.classes)).double() / max(len(labels), 1)

    def imbalance(taken_for: Tensor) -> float:
        return (shares(taken_for) - share).abs().sum().item() / 2

    def error(taken_for: Tensor, strata: Tensor | None = None, splits: int = SPLITS) -> float:
        return halved(lambda part: {"classes": imbalance(taken_for[part])}, len(taken_for), strata, splits)["classes"]

    real, network, figures = store.labels(split), of.network, {}
    assert real is not None
    share = shares(real)
    if labels is not None:
        figures["classifier/accuracy"] = _class_accuracy(network.trust, taken_for, labels, len(share))
    of_seed = mean(map(error, taken_for) if labels is None else map(error, taken_for, labels))
    by_seed = tuple(map(imbalance, taken_for))
    figure = Figure(name="class imbalance", better=LOWER, by_seed=by_seed, bootstrap=of_seed)
    if of.floor is not None:
        draws, others = of.floor.draws, store.images(features.other_split(split))
        logits = network.outputs(others, of.floor.index).logits
        assert logits is not None
        of_real = logits.argmax(1)
        value, error_of = bound(
            draws,
            lambda index: {"classes": imbalance(of_real[index])},
            lambda index: {"classes": error(of_real[index], draws.classes[index], FLOOR_SPLITS)},
            squares=("classes",),
        )
        figure = replace(figure, floor=value["classes"], floor_error=error_of["classes"], num_floor=draws.num)
        wanted = share if labels is None else shares(torch.cat(list(labels)))
        figure = replace(figure, by_class=_by_class(store.classes, taken_for, wanted, draws.classes, of_real))
    return {**figures, "classifier/classes": figure}


def _by_class(
    names: Sequence[str], taken_for: Sequence[Tensor], shares: Tensor, real: Tensor, seen: Tensor
) -> tuple[ClassCount, ...]:
    """The images of all sets by the class they are taken for; none where one class alone has a share.

    Of new images of a class, with its ``shares`` float64 [K], the classifier names as many as of held-out ones, int64
    [M], of class ``real`` and taken for ``seen``, one more of which counts as missed: few say little. What it takes
    wrongly for the class comes on top.
    """
    held, right = (torch.bincount(of, minlength=len(shares)) for of in (real, real[seen == real]))
    chances = shares * right / (held + 1)
    counts, num = torch.cat(list(taken_for)).bincount(minlength=len(shares)).tolist(), sum(map(len, taken_for))
    if int((shares > 0).sum()) < 2:
        return ()
    rows = zip(names, counts, chances.tolist(), strict=True)
    return tuple(ClassCount(name, n, num, num * p, binomial_tail(num - n, num, 1 - p)) for name, n, p in rows)


def _class_accuracy(trust: Trust | None, taken_for: Sequence[Tensor], labels: Sequence[Tensor], classes: int) -> Figure:
    """How often images are taken for the class asked for; its bounds are the accuracy on held-out images and chance."""
    right = tuple((t == asked).double().mean().item() for t, asked in zip(taken_for, labels, strict=True))
    share = mean(right)
    return Figure(
        name="class accuracy",
        better=HIGHER,
        by_seed=right,
        bootstrap=(share * (1 - share) / len(taken_for[0])) ** 0.5,
        floor=None if trust is None else trust.accuracy,
        ceiling=1 / classes,
    )


def reference_size(count: int, asked: int, networks: Sequence[Network]) -> int:
    """How many of ``count`` images are the reference if ``asked`` are wished for; 0: all, or `PATCHES` for patches."""
    return min(asked or (count if networks else PATCHES), count)


Distance = Callable[[Tensor, Tensor, int], Swd]
"""The distance between two sets of images and its error, by a seed."""


def _between(
    store: Store,
    sets: Sequence[Tensor],
    split: str,
    num_reference: int,
    asked: Tensor | None,
    name: str,
    distance: Distance,
) -> Figure:
    """The ``distance`` to ``num_reference`` images of ``split``; its floor is one set of real images."""
    num, part = len(sets[0]), features.other_split(split)
    real = store.images(split)[randomness.Order(0, f"some {split}", 0, store.count(split))[:num_reference]]
    each = [distance(images, real, seed) for seed, images in enumerate(sets)]
    index, draws = draws_of(store, part, num, asked)
    if draws is not None:
        other, rest = store.images(part)[index[(draws.chance or draws.sets)[0]]], real
    else:  # nothing else is real: some of the reference against the rest of it
        cut = min(num, len(real) // 2)
        other, rest = real[:cut], real[cut:]
    floor = distance(other, rest, 0)
    return Figure(
        name=name,
        better=LOWER,
        by_seed=tuple(found.mean for found in each),
        bootstrap=mean(found.standard_error for found in each),
        floor=floor.mean,
        floor_error=floor.standard_error,
        num_floor=0 if draws is None else len(other),
        ceiling=distance(features.noise_images(store, num), real, 0).mean,
        num_reference=len(real),
    )
