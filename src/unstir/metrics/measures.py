"""Every figure of features in one network: of sets of images, of real ones (the floor) and of noise (the ceiling)."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.metrics import distances
from unstir.metrics.evaluation import HIGHER, LOWER, Figure
from unstir.metrics.frechet import frechet_of, moments, standard_error
from unstir.metrics.inception import NAME
from unstir.metrics.reference import NOISE, Network, Progress, Reference, other_split, reference

KID_SUBSETS = 50
SPLITS = 5
"""Sets are split into halves so often to tell how figures vary with the choice of images."""

FEWEST = 12
"""Sets of fewer images have no figures: each half of one needs 6, for the neighbourhoods of density are of 5 others."""

NAMES = {
    "fd": ("FD", LOWER),
    "kid": ("KID", LOWER),
    "precision": ("precision", HIGHER),
    "recall": ("recall", HIGHER),
    "density": ("density", HIGHER),
    "coverage": ("coverage", HIGHER),
}
"""What figures are called, without the network's name, and which way is better."""


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


def figures_of(of: Sides, sets: Sequence[Tensor]) -> dict[str, Figure]:
    """The figures of ``sets`` of features, float64 [N, F] of equal N, one a seed, by key such as "classifier/fd"."""
    values = [_measure(of, features) for features in sets]
    errors = [_errors(of, features) for features in sets]
    real, features = _real(of, len(sets[0]))
    floor, floor_errors, ceiling = _measure(real, features), _errors(real, features), _measure(of, of.ceiling.features)
    found = {}
    for key, (name, better) in NAMES.items():
        plain = {"fd": "FID", "kid": "KID"}.get(key, name)
        found[f"{of.network.name}/{key}"] = Figure(
            name=plain if of.network.name == NAME else f"{name}-{of.network.name}",
            better=better,
            by_seed=tuple(value[key] for value in values),
            bootstrap=statistics.mean(error[key] for error in errors),
            floor=floor[key],
            floor_error=floor_errors[key],
            num_floor=len(features),
            ceiling=ceiling[key],
            network=of.network.name,
            network_hash=of.network.hash,
            num_reference=of.real.n,
        )
    distance = f"{of.network.name}/fd"
    found[distance] = dataclasses.replace(
        found[distance], infinite=_infinite(of, sets), floor_infinite=_infinite(real, [features])
    )
    return found


def _real(of: Sides, num: int) -> tuple[Sides, Tensor]:
    """The features of real images that are not in a reference, and the sides with that reference.

    Where the other split has none, ``num`` images of the reference (at most half of it) are held against the rest.
    """
    if of.floor is not None:
        return of, of.floor.features
    cut = min(num, len(of.real.features) // 2)
    rest = of.real.features[cut:]
    return dataclasses.replace(of, real=Reference(moments(rest), rest)), of.real.features[:cut]


def _measure(of: Sides, features: Tensor) -> dict[str, float]:
    """Every figure of one set of features [N, F]; neighbourhoods are those of as many real images."""
    return {"fd": frechet_of(features, of.real.moments), **_beside_distance(of, features, KID_SUBSETS)}


def _beside_distance(of: Sides, features: Tensor, subsets: int) -> dict[str, float]:
    real = of.real.features
    equal = real[: len(features)]
    size = min(1000, len(features), len(real))
    kid, _ = distances.kid(features, real, subsets=subsets, subset_size=size, seed=0)
    precision, recall = distances.precision_recall(equal, features)
    density, coverage = distances.density_coverage(equal, features)
    return {"kid": kid, "precision": precision, "recall": recall, "density": density, "coverage": coverage}


def _errors(of: Sides, features: Tensor) -> dict[str, float]:
    """The standard error of every figure from the choice of ``features`` [N, F].

    Halves of a set vary twice as much in variance as the set, so half the difference of two halves has the variance
    of the set's own figure; root mean square over `SPLITS` random splits. For KID of sets that are alike, whose
    variance falls with the square of their size, that is up to 1.4 times too large. (Resampling with replacement would
    put images upon themselves, and what is counted by nearest neighbours falls apart.)
    """
    errors = halved(lambda part: _beside_distance(of, features[part], KID_SUBSETS), len(features))
    return {**errors, "fd": standard_error(features, of.real.moments)}


def halved(figures: Callable[[Tensor], dict[str, float]], num: int) -> dict[str, float]:
    """Half the difference of each figure between the halves of ``num`` images: root mean square over `SPLITS` splits.

    ``figures`` maps the indices of some images, int64 [n], to figures of these.
    """
    half, squares = num // 2, dict[str, float]()
    for number in range(SPLITS):
        order = randomness.permutation(0, "halves of figures", number, num)
        first, second = figures(order[:half]), figures(order[half : 2 * half])
        for key in first:
            squares[key] = squares.get(key, 0.0) + ((first[key] - second[key]) / 2) ** 2 / SPLITS
    return {key: value**0.5 for key, value in squares.items()}


def _infinite(of: Sides, sets: Sequence[Tensor]) -> tuple[float, float] | None:
    """The mean distance of infinitely many images and its standard error; None where there are too few to tell."""
    if len(sets[0]) < distances.infinite_needs(sets[0].shape[1]):
        return None
    lines = [distances.infinite_fd(features, of.real.moments, seed) for seed, features in enumerate(sets)]
    spread = sum(error**2 for _, error in lines) ** 0.5 / len(lines)
    return statistics.mean(value for value, _ in lines), spread
