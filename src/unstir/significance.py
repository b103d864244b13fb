"""Tests of significance: when a difference is *decided*, for evaluations, the report and the doctor alike.

An effect is a difference (or a mean) with its standard error. Its test turns the ratio of the two into a *normal
deviate* z, so that effects known from three seeds and from a thousand images are held against one `LEVEL`:

* `difference` of two `Estimate`s (Welch), of two sets of values (`two_sample`), or of pairs (`paired`); `effect` of
  any value with an error;
* `exact` for a one-sided p, of `binomial_tail`, `precedence`, or `mann_whitney` (a conservative normal approximation).

A page tests some twenty effects: at 3.5 errors the chance that one of them stands out in a run where nothing happened
is below 1 in 100. The largest of k is tested so too (`largest_of`).

The tests of ranks rest on "they are all alike" alone. Mann & Whitney 1947 count the pairs (a, b) with a < b, and see
a shift of the whole; a few extreme values among many are seen by the precedence test (Epstein 1954, Nelson 1963). Rank
n values a and m values b together, in random order: at least c of a precede the j-th of b if and only if the first
c + j - 1 ranks hold fewer than j of b, so

    P(count >= c) = P(Hypergeometric(n + m, m, c + j - 1) <= j - 1)

exactly. A value equal to the j-th of b is not counted, which errs towards "alike".
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LEVEL = 3.5  # a decided effect lies more than so many standard errors from 0, small samples allowed for (Student's t)
TAIL = math.erfc(LEVEL / math.sqrt(2)) / 2  # the same as a one-sided p: 2.3e-4


class Estimate(NamedTuple):
    """A value, its standard error (nan where nothing estimates it), and the degrees of freedom of that error."""

    value: float
    error: float
    df: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A tested effect: its ``value``, the standard ``error`` of it, and the normal deviate ``z``.

    ``error`` is widened where it has few degrees of freedom (`widening`), so that an effect is decided beyond LEVEL
    errors; one picked out of several has its ``z`` lowered.
    """

    value: float
    error: float
    z: float

    @property
    def decided(self) -> bool:
        """Whether the effect is beyond what chance makes."""
        return abs(self.z) > LEVEL

    @property
    def positive(self) -> bool:
        """Whether the effect is decided and above 0."""
        return self.decided and self.value > 0

    @property
    def negative(self) -> bool:
        """Whether the effect is decided and below 0."""
        return self.decided and self.value < 0

    @property
    def errors(self) -> float:
        """The value in standard errors."""
        return self.value / self.error


def effect(value: float, error: float, df: float, choices: int = 1) -> Effect:
    """An effect whose error has ``df`` degrees of freedom, the largest of ``choices``; without an error, undecided."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return Effect(value=value, error=error, z=0.0)
    z = deviate(value / error, df)
    return Effect(value=value, error=error * widening(df), z=largest_of(choices, z))


def exact(value: float, p: float, choices: int = 1) -> Effect:
    """An effect of a one-sided p, the surest of ``choices``, with the error that value and z imply; 0 from p = 1/2."""
    z = largest_of(choices, -statistics.NormalDist().inv_cdf(min(max(p, 1e-300), 0.5)))  # within the normal's reach
    return Effect(value=value, error=abs(value / z) if z else 0.0, z=z)


def deviate(t: float, df: float) -> float:
    """The normal deviate of a Student t with ``df`` > 0 degrees of freedom.

    Wallace 1959, section 3: sign(t) (8 df + 1) / (8 df + 3) sqrt(df log(1 + t^2 / df)). From 3 degrees of freedom on it
    is within 0.01 of the exact one up to |t| = 3. Beyond, it is smaller, never larger: by 0.06 at t = 10.
    """
    if math.isinf(df):
        return t
    return math.copysign((8 * df + 1) / (8 * df + 3) * math.sqrt(df * math.log1p(t * t / df)), t)


def widening(df: float) -> float:
    """What a standard error of ``df`` degrees of freedom is multiplied by: the t whose deviate is LEVEL, over LEVEL."""
    if math.isinf(df):
        return 1.0
    return math.sqrt(df * math.expm1((LEVEL * (8 * df + 3) / (8 * df + 1)) ** 2 / df)) / LEVEL


def largest_of(choices: int, z: float) -> float:
    """The deviate of the largest of k ``choices``, by Bonferroni: as a tail is below exp(-z^2 / 2), k cost 2 log k."""
    return math.copysign(math.sqrt(max(z * z - 2 * math.log(choices), 0.0)), z)


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of independent ``values``, one or more; its error is nan of one alone, or where one is not finite."""
    several = len(values) > 1 and math.isfinite(math.fsum(values))
    error = statistics.stdev(values) / math.sqrt(len(values)) if several else math.nan
    return Estimate(statistics.fmean(values), error, max(len(values) - 1, 1))


def paired(before: Sequence[float], after: Sequence[float], choices: int = 1) -> Effect:
    """The mean change of the same images, ``after`` less ``before``: Student's t on the differences."""
    changes = mean_of([b - a for a, b in zip(before, after, strict=True)])
    return effect(*changes, choices)


def two_sample(a: Sequence[float], b: Sequence[float], choices: int = 1) -> Effect:
    """The mean of ``b`` less that of ``a``, other images or other steps: Welch's t."""
    return difference(mean_of(a), mean_of(b), choices)


def difference(a: Estimate, b: Estimate, choices: int = 1) -> Effect:
    """``b`` less ``a``, which are independent (Welch 1947)."""
    squares = a.error**2, b.error**2
    below = sum((of.error**2) ** 2 / of.df for of in (a, b) if not math.isinf(of.df))
    df = sum(squares) ** 2 / below if below else math.inf
    return effect(b.value - a.value, math.sqrt(sum(squares)), df, choices)


def binomial_tail(successes: int, num: int, chance: float) -> float:
    """P(X >= successes) of X ~ Binomial(num, chance), exact; 1 for a chance of 1."""
    if successes <= 0 or chance >= 1:
        return 1.0
    if chance <= 0:
        return 0.0
    whole, p, q = math.lgamma(num + 1), math.log(chance), math.log1p(-chance)
    ways = {k: whole - math.lgamma(k + 1) - math.lgamma(num - k + 1) for k in range(successes, num + 1)}
    return min(math.fsum(math.exp(way + k * p + (num - k) * q) for k, way in ways.items()), 1.0)


@dataclass(frozen=True)
class Shift:
    """The ``probability`` that a value of a is below one of b (1/2 for equals), and the test of more than 1/2.

    ``standard_error`` is DeLong et al. 1988's, 0 where the sets do not overlap; ``p`` is one-sided.
    """

    probability: float
    standard_error: float
    p: float


@dataclass(frozen=True)
class Precedence:
    """The ``count`` of values of a below ``threshold``, a low rank of b; ``expected`` at most where all are alike.

    ``p`` is the chance of so many, or more than that where the threshold is no rank; ``least`` is the least count of a
    p within the level asked for, None where b has too few values for any.
    """

    count: int
    expected: float
    threshold: float
    p: float
    least: int | None


def mann_whitney(a: Tensor, b: Tensor) -> Shift:
    """Whether values ``a`` [n] tend to be smaller than ``b`` [m]: the normal approximation, ties and continuity minded.

    Two values or more of each. The standard error is that of DeLong et al. 1988, from each value's share of the other
    set that it precedes, a tie counting half.
    """
    n, m = len(a), len(b)
    of_a, of_b = 1 - _preceding(b, a), _preceding(a, b)
    ties = torch.unique_consecutive(torch.cat((a, b)).sort().values, return_counts=True)[1].double()
    correction = ((ties**3 - ties).sum() / ((n + m) * (n + m - 1))).item()
    deviation = math.sqrt(max(n * m / 12 * (n + m + 1 - correction), 0.0))
    probability = of_a.mean().item()
    z = (n * m * (probability - 0.5) - 0.5) / deviation if deviation else -math.inf
    error = math.sqrt(of_a.var().item() / n + of_b.var().item() / m)
    return Shift(probability, error, math.erfc(z / math.sqrt(2)) / 2)


def precedence(a: Tensor, b: Tensor, level: float, most: float = math.inf) -> Precedence:
    """How many of ``a`` [n] lie below the j-th smallest of ``b`` [m], j = 1 + m // 1000, and by what chance.

    None at ``most`` or above counts, which lowers the count and leaves p valid. ``least`` is for p <= ``level``.
    """
    n, m = len(a), len(b)
    j = 1 + m // 1000
    threshold = min(b.kthvalue(j).values.item(), most)
    count = int((a < threshold).sum())
    least = 1 + bisect_left(range(1, n + 1), True, key=lambda c: precedence_p(c, n, m, j) <= level)
    return Precedence(count, j * n / (m + 1), threshold, precedence_p(count, n, m, j), least if least <= n else None)


def precedence_p(count: int, n: int, m: int, j: int) -> float:
    """The chance that ``count`` or more of n values precede the j-th of m others, all alike; in whole numbers."""
    first = count + j - 1
    orders = sum(math.comb(m, i) * math.comb(n, first - i) for i in range(min(j, first + 1)))
    return orders / math.comb(n + m, first)


def _preceding(a: Tensor, b: Tensor) -> Tensor:
    """For each of ``b`` the share of ``a`` that is smaller, an equal one counting half: float64, the shape of b."""
    ordered = a.sort().values
    below, upto = (torch.searchsorted(ordered, b, right=right) for right in (False, True))
    return (below + upto).double() / (2 * len(a))


def decimals(error: float) -> int:
    """The decimals of a value with this error > 0: one digit of it, two where it begins with 1; below 0 for tens."""
    first = -math.floor(math.log10(error))
    leading: float = round(error * 10.0**first, 1)
    return first + (leading < 2)


def with_error(value: float, error: float | None, sign: bool = False) -> str:
    """A value and its standard error, as "0.0212 ± 0.0003": one digit of the error, two where it begins with 1.

    Without an error, four digits. A value that a wide error would round to 0 keeps two: "3.2 ± 400".
    """
    plus = "+" if sign else ""
    if error is None or not math.isfinite(error) or error <= 1e-12 * abs(value):  # that of adding up equal numbers
        return f"{value:{plus}.4g}"
    places = decimals(error)
    if places > 6 or max(abs(value), error) >= 1e7:
        return f"{value:{plus}.3g} ± {error:.1g}"
    shown, bar = round(value, places), round(error, places)
    head = f"{shown:{plus},.{max(places, 0)}f}" if shown or not value else f"{value:{plus}.2g}"
    return f"{head} ± {bar:,.{max(places, 0)}f}"
