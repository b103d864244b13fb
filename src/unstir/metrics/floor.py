"""The floor of a figure: what new real images reach, drawn as the generator draws its own.

docs/evaluation.md has the question and the promise.

*The classes.* Held-out images are drawn without replacement (an image drawn twice is its own nearest neighbour), by the
shares of the training split or as asked for. At random, some class runs short when nearly all held-out images are to be
drawn. Then fewer are drawn, n' instead of n, at random and in equal shares; the difference of the means is due to the
chance in the classes alone, it falls as 1/n (a distance between shares of classes falls as 1/sqrt(n)), and so

    floor(n) = in equal shares(n) + n'/n (at random(n') - in equal shares(n'))

*The error.* The variance of one set of n in fixed shares (by halves, which are drawn in these shares too) times n over
the number of held-out images is that of the mean over all sets that these images could give, and what the draws made
leave open is added. The reference is the same for samples and floor, so its choice cancels where both are compared.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.metrics.figures import Figures
from unstir.randomness import Key

FLOOR_SPLITS = 20  # as `SPLITS`, for the floor: of a set or a few, its error decides as much as that of all the samples
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
    """The floor of each figure and its standard error (see above).

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
    """The largest number up to ``most`` that fits; 0 where none does."""
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
    """`DRAWS` index sets of n images in fixed shares of classes."""
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
