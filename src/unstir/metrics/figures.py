"""One figure: a mean over seeds with its errors and bounds, and how it is compared (`unstir.significance`).

The standard error of a figure of one set of images is from random halves of the set, whose variance is twice that of
the whole, so that half the difference of their figures deviates as the figure of the whole does. (Resampling with
replacement doubles the bias of a Fréchet distance, and spoils what is counted by nearest neighbours.)
"""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.significance import Effect, Estimate, difference, exact, with_error

LOWER, HIGHER, NEAR_ONE = "lower", "higher", "nearer to 1"
Figures = dict[str, float]  # values or errors of figures by key
SPLITS = 5  # of a set into halves, to estimate how figures vary with the choice of images
FLOOR_DF = 19.0  # of a floor's error: 20 splits into halves, or 20 sets drawn with replacement, less one
BOOTSTRAP_DF = 5.0  # of a bootstrap in addition to those of seeds: with three seeds chance then decides as seldom as
# `LEVEL` says even where the bootstrap is 0.7 of the true spread


@dataclass(frozen=True)
class ClassCount:
    """How many of ``num`` images show a class, how many are ``expected``, and the ``p`` of so few."""

    name: str
    count: int
    num: int
    expected: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure: a mean over seeds, with what it is to be compared with.

    ``name`` is what it is called ("FD-classifier", "FID", "KID", "coverage", ...), ``better`` "lower", "higher" or
    "nearer to 1". ``by_seed`` has the value of each seed. ``bootstrap`` is the standard error of one seed's value from
    the choice of images, None where it was not resampled, and ``reference_error`` that of ``value`` from the choice of
    the reference, which figures of one protocol share, floors too. ``floor`` is the same figure of sets of
    ``num_floor`` real images that are not in the reference of ``num_reference``, drawn as the generator draws, as good
    as new images can be; ``num_floor`` is 0 where such images were lacking, and nothing may be compared with that
    floor. ``ceiling`` is that of uniform noise. Both are None where there is none. ``infinite`` (value, standard error)
    is extrapolated to infinitely many samples, ``floor_infinite`` to real images. ``by_class`` has the images of all
    seeds by the class that they show.
    """

    name: str
    better: str
    by_seed: tuple[float, ...]
    bootstrap: float | None = None
    reference_error: float | None = None
    floor: float | None = None
    floor_error: float | None = None
    num_floor: int = 0
    ceiling: float | None = None
    infinite: tuple[float, float] | None = None
    floor_infinite: tuple[float, float] | None = None
    num_reference: int = 0
    by_class: tuple[ClassCount, ...] = ()

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return sum(self.by_seed) / len(self.by_seed)

    @property
    def finite(self) -> bool:
        """Whether all its values are numbers."""
        bounds = self.bootstrap, self.reference_error, self.floor, self.floor_error, self.ceiling
        return all(math.isfinite(each) for each in (*self.by_seed, *bounds) if each is not None)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds; None for one seed."""
        return statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else None

    @property
    def own_error(self) -> float | None:
        """The standard error of ``value`` for one reference: the larger of what seeds and bootstrap say, or None."""
        known = [each for each in (self.deviation, self.bootstrap) if each is not None]
        return max(known) / math.sqrt(len(self.by_seed)) if known else None

    @property
    def error(self) -> float | None:
        """The standard error of ``value``, with the reference's where that is known; None where neither is."""
        own = self.own_error
        return own if own is None else math.hypot(own, self.reference_error or 0.0)

    @property
    def estimate(self) -> Estimate:
        """The mean over seeds as a test takes it; without any error (one seed, nothing resampled) the error is nan.

        The reference is taken as it is, for all that is compared shares it. Where the bootstrap says too little, the
        error is often that of few seeds: the degrees of freedom are those of the seeds and `BOOTSTRAP_DF`.
        """
        df = len(self.by_seed) - 1.0 + (0 if self.bootstrap is None else BOOTSTRAP_DF)
        return Estimate(self.value, math.nan if self.own_error is None else self.own_error, max(df, 1.0))

    @property
    def floor_estimate(self) -> Estimate | None:
        """The floor as a test takes it; None where its error is not known."""
        if self.floor is None or self.floor_error is None:
            return None
        return Estimate(self.floor, self.floor_error, FLOOR_DF)


def figure_effect(a: Figure, b: Figure) -> Effect:
    """How much figure ``b`` is above ``a``, of other images: Welch's t."""
    return difference(a.estimate, b.estimate)


def above_floor(figure: Figure, num: int) -> Effect | None:
    """How much a figure is above that of as many real images (other n: other bias); None without such a floor."""
    least = figure.floor_estimate
    return None if least is None or figure.num_floor != num else difference(least, figure.estimate)


def too_rare(figure: Figure) -> list[tuple[ClassCount, Effect]]:
    """The classes that images decidedly show too seldom or never: an exact binomial test each, Bonferroni over all."""
    counts = figure.by_class
    tests = [(of, exact(of.count - of.expected, of.p, len(counts))) for of in counts]
    return [(of, change) for of, change in tests if change.negative]


def rare_in_words(figure: Figure) -> str:
    """The classes that are `too_rare`, such as "cat (0 of 900, 90 expected)"; "" for none."""
    rare = [of for of, _ in too_rare(figure)]
    return ", ".join(f"{of.name} ({of.count:,} of {of.num:,}, {of.expected:.0f} expected)" for of in rare)


def verdict(change: Effect, better: str) -> str:
    """What a change of a figure is: "better", "worse", "undecided", or "different" where near to 1 is ``better``."""
    if not change.decided:
        return "undecided"
    if better == NEAR_ONE:
        return "different"
    return "better" if change.positive == (better == HIGHER) else "worse"


def two_halves(num: int, seed: int, stream: str, repeat: int, strata: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A random split of 0..num-1 into halves, of which the second has one more where ``num`` is odd: int64 each.

    Where ``strata``, int64 [num], says the class of each, the halves share every class evenly; where a class has one
    too many, chance says which half has it.
    """
    order = randomness.permutation(seed, stream, repeat, num)
    if strata is not None:
        places = randomness.permutation(seed, f"{stream}, classes", repeat, int(strata.max()) + 1)
        order = order[places[strata[order]].argsort(stable=True)]
        return order[1::2], order[::2]
    return order[: num // 2], order[num // 2 :]


def halved(
    figures: Callable[[Tensor], Figures], num: int, strata: Tensor | None = None, splits: int = SPLITS
) -> Figures:
    """The standard error of each figure as in `halves_of`: half the difference of two halves, root mean square."""
    halves = halves_of(figures, num, strata, splits)
    return {key: float(differences.square().mean().sqrt()) for key, (_, differences) in halves.items()}


def halves_of(
    figures: Callable[[Tensor], Figures], num: int, strata: Tensor | None = None, splits: int = SPLITS
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each figure, by index int64 [n], the mean of two halves and half their difference, float64 [splits] each."""
    parts = [two_halves(num, 0, "halves of figures", number, strata) for number in range(splits)]
    pairs = [[figures(part[: num // 2]) for part in both] for both in parts]
    result = {}
    for key in pairs[0][0]:
        values = torch.tensor([[half[key] for half in pair] for pair in pairs], dtype=torch.float64)
        result[key] = values.mean(1), (values[:, 0] - values[:, 1]) / 2
    return result


def error_of_halves(means: Tensor, differences: Tensor) -> Tensor:
    """The standard error, float64 [...], by [repeats, ...] ``means`` of halves and half their ``differences``."""
    whole = differences.square().mean(0)
    return torch.maximum(whole - means.var(0), whole / 2).sqrt()


def in_rows(figures: Iterable[Figure], num: int) -> list[tuple[str, str, str, str, str]]:
    """A row per figure of sets of ``num`` images: name, value, those of real images and noise, which is better."""
    rows = []
    for it in figures:
        real = "" if it.floor is None else with_error(it.floor, it.floor_error)
        real += "" if it.num_floor in (0, num) else f" (n = {it.num_floor})"  # of another n, a bound has another bias
        noise = "" if it.ceiling is None else with_error(it.ceiling, None)
        rows.append((it.name, with_error(it.value, it.error), real, noise, it.better))
        if it.infinite is not None:
            real = "" if it.floor_infinite is None else with_error(*it.floor_infinite)
            rows.append((f"{it.name}, infinite n", with_error(*it.infinite), real, "", it.better))
    return rows
