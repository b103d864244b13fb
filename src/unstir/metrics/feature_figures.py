"""Every figure of features in one network: of sets of images, of real ones (the floor) and of noise (the ceiling).

Precision, recall, density and coverage hold equal numbers of samples and real images against each other. They are the
mean over disjoint subsets of the reference, and what the choice of these leaves open is an error of its own.

The floor is what new real images reach, drawn as the generator draws its own: docs/evaluation.md ("Bounds") has how,
and its error.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.metrics.distances import fidelity, frechet_of, infinite_fd, kid, moments, near, standard_error
from unstir.metrics.features import KEPT, NEAR, NOISE, Network, Reference, chosen, other_split, reference
from unstir.metrics.figures import HIGHER, LOWER, SPLITS, Figure, Figures, error_of_halves, halved, halves_of
from unstir.randomness import Key

KID_SUBSETS, FEWER_SUBSETS = 50, 10  # of a kernel distance; fewer where only differences are asked
FEW_SETS = 4  # sets whose errors are measured, at most; the figure's is their mean
SUBSETS = 10  # disjoint subsets of the reference that neighbourhoods are measured against, at most
HELD_OUT = 4  # held-out images that the floor is drawn from, in multiples of a set's
NAMES = {"fd": ("FD", LOWER), "kid": ("KID", LOWER), **{key: (key, HIGHER) for key in NEAR}}
"""What figures are called, without the network's name, and whether lower or higher is better."""

FLOOR_SPLITS = 20  # as `SPLITS`, for the floor, whose error decides as much
DRAWS = 12  # sets that are drawn of each kind
FEWEST = 12  # halves of fewer images have no five nearest neighbours, which density and coverage take
AS_ASKED = 0.1  # the counts of classes may deviate by this share of the squared distance that is due to chance


@dataclass(frozen=True, eq=False)
class Draws:
    """Index sets, int64, into held-out images of which ``classes``, int64 [M], are the classes.

    ``sets`` are of ``num`` images as the generator draws them, or in fixed shares where ``chance`` is not empty;
    ``chance`` and ``fixed`` are smaller sets with classes at random and in fixed shares.
    """

    classes: Tensor
    num: int
    sets: tuple[Tensor, ...]
    chance: tuple[Tensor, ...] = ()
    fixed: tuple[Tensor, ...] = ()


def draws(classes: Tensor, shares: Tensor, num: int, at_random: bool) -> Draws | None:
    """Draws of ``num`` images, or of the most that there are, with classes by ``shares``, float64 [K].

    ``classes``, int64 [M], are those of the held-out images; ``at_random`` leaves the number of each class to chance.
    None where fewer than `FEWEST` images can be drawn so.
    """
    held = torch.bincount(classes, minlength=len(shares))
    most = min(num, len(classes))
    small = _most(lambda n: _enough_for_chance(held, shares, n), most) if at_random else 0
    size = max(small, _most(lambda n: _as_asked(held, shares, n), most))
    if at_random and size > 4 * small:  # too far to reason from so few
        size = small
    if size < FEWEST:
        return None
    if at_random and small == size:
        return Draws(classes, size, _by_chance(classes, shares, size))
    sets = _in_shares(classes, shares, size, "sets")[: 1 if size == len(classes) else DRAWS]
    if not at_random:
        return Draws(classes, size, sets)
    fixed = _in_shares(classes, shares, small, "fixed")
    return Draws(classes, size, sets, _by_chance(classes, shares, small), fixed)


def bound(
    of: Draws, figures: Callable[[Tensor], Figures], errors: Callable[[Tensor], Figures], squares: Sequence[str] = ()
) -> tuple[Figures, Figures]:
    """The floor of each figure and its standard error (docs/evaluation.md, "Bounds").

    ``figures`` and ``errors`` map indices of held-out images to figures of these and to their standard errors; keys in
    ``squares`` are figures whose square falls as 1/n.
    """
    sets, chance, fixed = ([figures(index) for index in kind] for kind in (of.sets, of.chance, of.fixed))
    stated = [errors(index) for index in of.sets[: max(len(of.classes) // of.num, 1)]]
    values, errors_of = {}, {}
    for key in sets[0]:
        value, variance = _mean(sets, key)
        variance += math.fsum(each[key] ** 2 for each in stated) / len(stated) * of.num / len(of.classes)
        terms = [(1.0, value, variance)]
        if chance:
            part = len(of.chance[0]) / of.num
            terms += [(part, *_mean(chance, key)), (-part, *_mean(fixed, key))]
        values[key], variance = _sum(terms) if key not in squares else _root_of_squares(terms)
        errors_of[key] = math.sqrt(variance)
    return values, errors_of


def _mean(figures: Sequence[Figures], key: str) -> tuple[float, float]:
    """The mean of a figure over sets, and the variance of that mean: 0 for one set."""
    count, mean = len(figures), math.fsum(each[key] for each in figures) / len(figures)
    return mean, math.fsum((each[key] - mean) ** 2 for each in figures) / max(count - 1, 1) / count


def _sum(terms: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The sum of ``weight * value`` and its variance, of terms (weight, value, variance)."""
    return math.fsum(w * value for w, value, _ in terms), math.fsum(w * w * variance for w, _, variance in terms)


def _root_of_squares(terms: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The root of the sum of ``weight * value^2`` and its variance to first order, of terms as in `_sum`."""
    whole = math.sqrt(max(math.fsum(w * value**2 for w, value, _ in terms), 0.0))
    if whole == 0:
        return 0.0, _sum(terms)[1]
    return whole, math.fsum((w * value / whole) ** 2 * variance for w, value, variance in terms)


def _most(fits: Callable[[int], bool], most: int) -> int:
    return next((n for n in range(most, 0, -1) if fits(n)), 0)


def _enough_for_chance(held: Tensor, shares: Tensor, n: int) -> bool:
    """Whether numbers of classes at random are held, up to three deviations, in one draw of three at least."""
    likely = n * shares
    if not bool((likely + 3 * (likely * (1 - shares)).sqrt() <= held + 1e-9).all()):
        return False
    return float(torch.special.gammainc(held.double() + 1, likely).sum()) <= 1  # Poisson: classes that run short


def _as_asked(held: Tensor, shares: Tensor, n: int) -> bool:
    """Whether n held images can have the shares, but for rounding that is small against what chance would make."""
    likely, asked = n * shares, shares > 0
    limit = AS_ASKED * (int(asked.sum()) - 1) + 1e-9
    lacking = ((likely - held).clamp(min=0) ** 2 / likely)[asked].sum()  # what no choice of numbers undercuts
    if int(held[asked].sum()) < n or lacking > limit:
        return False
    return bool(((_numbers(held, shares, n) - likely) ** 2 / likely)[asked].sum() <= limit)


def _numbers(held: Tensor, shares: Tensor, n: int) -> Tensor:
    """How many of each class, int64 [K], are nearest to n ``shares`` among those that are ``held``; the sum is n."""
    likely = n * shares
    numbers = torch.minimum(likely.floor().long(), held)
    while (left := n - int(numbers.sum())) > 0:
        lacking = torch.where((numbers < held) & (shares > 0), likely - numbers, -math.inf)
        first = lacking.argsort(descending=True, stable=True)[: min(left, int(lacking.isfinite().sum()))]
        numbers[first] += 1
    return numbers


def _in_shares(classes: Tensor, shares: Tensor, n: int, kind: str) -> tuple[Tensor, ...]:
    numbers = _numbers(torch.bincount(classes, minlength=len(shares)), shares, n)
    return tuple(_pick(classes, numbers, k, kind) for k in range(DRAWS))


def _by_chance(classes: Tensor, shares: Tensor, n: int) -> tuple[Tensor, ...]:
    """`DRAWS` index sets of n images, each image's class drawn by ``shares``, as often as are held at the most."""
    held, edges, sets = torch.bincount(classes, minlength=len(shares)), shares.cumsum(0), list[Tensor]()
    attempt = 0
    while len(sets) < DRAWS:
        drawn = randomness.uniform(Key(0, "floor classes", attempt, torch.arange(n)), torch.float64) * edges[-1]
        numbers = torch.bincount(torch.searchsorted(edges, drawn, right=True), minlength=len(shares))
        if bool((numbers <= held).all()):
            sets.append(_pick(classes, numbers, len(sets), "chance"))
        attempt += 1
    return tuple(sets)


def _pick(classes: Tensor, numbers: Tensor, number: int, kind: str) -> Tensor:
    """Indices of ``numbers`` images of each class at random."""
    order = randomness.permutation(0, f"floor {kind}", number, len(classes))
    order = order[classes[order].argsort(stable=True)]
    held = torch.bincount(classes, minlength=len(numbers))
    rank = torch.arange(len(classes)) - (held.cumsum(0) - held)[classes[order]]
    return order[rank < numbers[classes[order]]]


@dataclass(frozen=True, eq=False)
class Floor:
    """Real images outside the reference: their ``index``, their ``features``, and ``draws`` as the generator draws."""

    index: Tensor
    features: Tensor
    draws: Draws


@dataclass(frozen=True, eq=False)
class Sides:
    """What images are measured against in one network: the reference, other real images, and features of noise."""

    network: Network
    real: Reference
    floor: Floor | None
    ceiling: Tensor


def sides(store: Store, network: Network, num: int, split: str, count: int, asked: Tensor | None) -> Sides:
    """The reference of ``count`` images of ``split`` (0: all), and the bounds for sets of ``num`` images.

    The floor is drawn from the other split, with classes as ``asked``, int64 [num], or, for None, at random by the
    shares of the training split; None where too few images can be drawn.
    """
    real = reference(store, split, network, count)
    other, floor = other_split(split), None
    index, drawn = draws_of(store, other, num, asked)
    if drawn is not None:
        floor = Floor(index, reference(store, other, network, HELD_OUT * num).features, drawn)
    return Sides(network, real, floor, reference(store, NOISE, network, num).features)


def draws_of(store: Store, part: str, num: int, asked: Tensor | None) -> tuple[Tensor, Draws | None]:
    """The first `HELD_OUT` ``num`` images of ``part``, int64 [M], and draws of ``num`` of these, classes as `sides`."""
    labels, train, total = store.labels(part), store.labels("train"), store.count(part)
    index = chosen(part, total, min(HELD_OUT * num, total, KEPT))
    if labels is None or train is None:
        return index, draws(torch.zeros_like(index), torch.ones(1, dtype=torch.float64), num, False)
    shares = torch.bincount(train if asked is None else asked.cpu(), minlength=len(store.classes)).double()
    return index, draws(labels[index], shares / shares.sum(), num, asked is None)


def figures_of(of: Sides, sets: Sequence[Tensor], labels: Sequence[Tensor] | None = None) -> dict[str, Figure]:
    """The figures of ``sets`` of features, float64 [N, F] of equal N, one per seed, by key such as "classifier/fd".

    ``labels``, int64 [N] per set, are the classes that were asked for: sets drawn anew would be of the same ones.
    """
    strata: Sequence[Tensor | None] = [None] * len(sets) if labels is None else labels
    if len(sets[0]) > len(of.real.features):  # neighbourhoods are of its first ones; a folder has its classes in turn
        order = randomness.permutation(0, "order of a set", 0, len(sets[0]))
        sets = [features[order] for features in sets]
        strata = [None if classes is None else classes[order] for classes in strata]
    values = [_measure(of, features) for features in sets]
    few = list(zip(sets, strata, strict=True))[:FEW_SETS]
    errors, choices = [_errors(of, *pair) for pair in few], [_choices(of, features) for features, _ in few]
    floor, floor_errors, num_floor = _floor(of, len(sets[0]))
    ceiling = _measure(of, of.ceiling)
    figures = {}
    for key, (name, better) in NAMES.items():
        figures[f"{of.network.name}/{key}"] = Figure(
            name=of.network.titles.get(key, f"{name}-{of.network.name}"),
            better=better,
            by_seed=tuple(value[key] for value in values),
            bootstrap=statistics.mean(error[key] for error in errors),
            reference_error=statistics.mean(choice[key] for choice in choices) if key in NEAR else None,
            floor=floor[key],
            floor_error=floor_errors[key],
            num_floor=num_floor,
            ceiling=ceiling[key],
            num_reference=of.real.moments.n,
        )
    key = f"{of.network.name}/fd"
    real = None if of.floor is None else _infinite(of, [of.floor.features], [of.floor.draws.classes])
    return figures | {key: replace(figures[key], infinite=_infinite(of, sets, strata), floor_infinite=real)}


def _floor(of: Sides, num: int) -> tuple[Figures, Figures, int]:
    """The floor of each figure, its standard error, and the images of a set.

    Where the other split has too few, some images of the reference are held against the rest. That shows the size, and
    the number of images is 0, for nothing may be compared with it.
    """
    if of.floor is None:
        cut = min(num, len(of.real.features) // 2)
        rest = of.real.features[cut:]
        apart = replace(of, real=Reference(moments(rest), rest))
        features = of.real.features[:cut]
        return _measure(apart, features), _errors(apart, features), 0
    features, draws = of.floor.features, of.floor.draws

    def figures(index: Tensor) -> Figures:
        return _measure(of, features[index], KID_SUBSETS if len(index) == draws.num else FEWER_SUBSETS)

    found = bound(draws, figures, lambda index: _errors(of, features[index], draws.classes[index], FLOOR_SPLITS))
    return *found, draws.num


def _measure(of: Sides, features: Tensor, subsets: int = KID_SUBSETS) -> Figures:
    """Every figure of one set of features [N, F]; neighbourhoods are those of as many real images."""
    of_near = _named(_neighbours(of.real, features).mean(0))
    return {"fd": frechet_of(features, of.real.moments), "kid": _kid(of, features, subsets), **of_near}


def _kid(of: Sides, features: Tensor, subsets: int) -> float:
    real = of.real.features
    size = min(1000, len(features), len(real))
    return kid(features, real, subsets, size, seed=0, known=of.real.known)[0]


def _neighbours(real: Reference, features: Tensor, most: int = SUBSETS) -> Tensor:
    """The figures `NEAR` of as many features as ``real`` has at most, against each of its disjoint subsets: [R, 4]."""
    features = features[: len(real.features)]
    rows = [near(some, features, radii) for some, radii in real.subsets(len(features), most)]
    return torch.tensor(rows, dtype=torch.float64)


def _errors(of: Sides, features: Tensor, strata: Tensor | None = None, splits: int = SPLITS) -> Figures:
    """The standard error of every figure from the choice of ``features`` [N, F], against the same reference.

    Precision and density are means over images, whose deviation gives it. Recall and coverage of half the samples are
    those against as many subsets, of half the size, so that all is as it was but smaller. ``strata``: see `two_halves`.
    """
    num = min(len(features), len(of.real.features))
    subsets = of.real.subsets(num, SUBSETS)
    classes = None if strata is None else strata[:num]

    def of_near(part: Tensor) -> Figures:
        return _named(_neighbours(of.real, features[part], len(subsets)).mean(0))

    kernel = halves_of(lambda part: {"kid": _kid(of, features[part], FEWER_SUBSETS)}, len(features), strata, splits)
    of_images = torch.stack([fidelity(some, features[:num], radii) for some, radii in subsets]).mean(0)
    of_means = _errors_of_means(of_images, classes)
    return {
        "fd": standard_error(features, of.real.moments, 2 * splits, strata=strata),
        "kid": float(error_of_halves(*kernel["kid"])),
        **halved(of_near, num, classes, splits),
        "precision": of_means[0],
        "density": of_means[1],
    }


def _choices(of: Sides, features: Tensor) -> Figures:
    """The standard error of the figures `NEAR` of ``features`` [N, F] from the choice of the reference's images.

    Estimated from how they vary between its disjoint subsets; where it has one alone, between its halves against half
    of the features, whose variance is twice as large.
    """
    real = of.real
    rows = _neighbours(real, features)
    if len(rows) < 2:
        even = min(len(features), len(real.features)) // 2 * 2
        rows = (_neighbours(real, features[0:even:2], 2) + _neighbours(real, features[1:even:2], 2)) / 2
    return _named((rows.var(0) / len(rows)).sqrt())


def _named(row: Tensor) -> Figures:
    return dict(zip(NEAR, row.tolist(), strict=True))


def _infinite(of: Sides, sets: Sequence[Tensor], strata: Sequence[Tensor | None]) -> tuple[float, float] | None:
    """The mean `infinite_fd` of sets with its error, by the ``strata`` of each; None where the images are too few."""
    if len(sets[0]) < 2 * (sets[0].shape[1] + 1):
        return None
    pairs = enumerate(zip(sets, strata, strict=True))
    lines = [infinite_fd(features, of.real.moments, seed, strata=classes) for seed, (features, classes) in pairs]
    spread = sum(error**2 for _, error in lines) ** 0.5 / len(lines)
    return statistics.mean(value for value, _ in lines), spread


def _errors_of_means(values: Tensor, strata: Tensor | None) -> list[float]:
    """The standard error of the mean of each row, [K, N], over images; within ``strata``, int64 [N], where given."""
    num = values.shape[1]
    strata = torch.zeros(num, dtype=torch.int64) if strata is None else strata
    numbers = strata.bincount()
    means = torch.zeros(len(values), len(numbers)).double().index_add(1, strata, values) / numbers.clamp(min=1)
    squares = (values - means[:, strata]).square().sum(1) / max(num - int((numbers > 0).sum()), 1)
    errors: list[float] = (squares / num).sqrt().tolist()
    return errors
