"""Effects with their errors, and when one is large enough to be put into a sentence.

An effect is a difference (or a mean) with its standard error. Its test turns the ratio of the two into a *normal
deviate* z, the size that a standard normal number would have with the same tail, so that effects known from three seeds
and from a thousand images are held against one `LEVEL`. A page tests some forty effects; at two errors, two of them
would stand out in a run where nothing happened. At 3.5 each has a chance of 1 in 2,150, and all forty together less
than 1 in 50. Where the largest of k effects is picked out, its z is that of the largest of k (`largest_of`).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LEVEL = 3.5
"""A decided effect lies more than so many standard errors from 0, small samples allowed for (Student's t)."""

MULTIPLICITY = (
    "What is stated here is larger than 3.5 of its standard errors, so that among the forty or so effects tested fewer "
    "than one page in fifty states one that chance alone made; whatever is smaller is called undecided. "
    "Errors (+-) are one standard error, those of differences widened where only a few seeds tell them."
)
"""The same for a reader of the page."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A tested effect: its ``value``, the standard ``error`` of it, the normal deviate ``z``, and the ``test``'s name.

    ``error`` is widened where few degrees of freedom know it (`widening`), so that an effect is decided beyond LEVEL
    errors; one that was picked out of several needs more, and has its ``z`` lowered. ``z`` is None where something was
    counted and no chance is involved.
    """

    value: float
    error: float
    z: float | None
    test: str

    @property
    def decided(self) -> bool:
        """Whether the effect is beyond what chance makes."""
        return self.z is None or abs(self.z) > LEVEL


def counted(value: float) -> Effect:
    """An exact number."""
    return Effect(value=value, error=0.0, z=None, test="count")


def effect(value: float, error: float, df: float, test: str, choices: int = 1) -> Effect:
    """An effect whose error has ``df`` degrees of freedom, the largest of ``choices``; without an error, undecided."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return Effect(value=value, error=error, z=0.0, test=test)
    z = deviate(value / error, df)
    return Effect(value=value, error=error * widening(df), z=largest_of(choices, z), test=test)


def deviate(t: float, df: float) -> float:
    """The normal deviate of a Student t with ``df`` > 0 degrees of freedom.

    Wallace 1959, section 3: sign(t) (8 df + 1) / (8 df + 3) sqrt(df log(1 + t^2 / df)). It is within 0.02 of the exact
    one for 3 degrees of freedom or more, and smaller than it where it counts, beyond 3.
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
    """The deviate of an effect that was picked as the largest of ``choices``, by Bonferroni's bound on the tail.

    The tail of a normal is below exp(-z^2 / 2), so k of them cost 2 log k of z^2; a little more than is due.
    """
    return math.copysign(math.sqrt(max(z * z - 2 * math.log(choices), 0.0)), z)


def mean_error(values: Sequence[float]) -> float:
    """The standard error of the mean of at least two ``values``."""
    return statistics.stdev(values) / math.sqrt(len(values))


def paired(before: Sequence[float], after: Sequence[float], choices: int = 1) -> Effect:
    """The mean change of the same images, ``after`` less ``before``: Student's t on the differences."""
    changes = [b - a for a, b in zip(before, after, strict=True)]
    return effect(statistics.fmean(changes), mean_error(changes), len(changes) - 1, "paired t", choices)


def two_sample(a: Sequence[float], b: Sequence[float], choices: int = 1, test: str = "Welch's t") -> Effect:
    """The mean of ``b`` less that of ``a``, other images or other steps: Welch's t."""
    return difference(
        (statistics.fmean(a), mean_error(a), len(a) - 1),
        (statistics.fmean(b), mean_error(b), len(b) - 1),
        choices,
        test,
    )


def difference(
    a: tuple[float, float, float], b: tuple[float, float, float], choices: int = 1, test: str = "Welch's t"
) -> Effect:
    """``b`` less ``a``, each (value, standard error, degrees of freedom), independent (Welch 1947)."""
    squares = a[1] ** 2, b[1] ** 2
    below = sum(square**2 / of[2] for square, of in zip(squares, (a, b), strict=True) if not math.isinf(of[2]))
    df = sum(squares) ** 2 / below if below else math.inf
    return effect(b[0] - a[0], math.sqrt(sum(squares)), df, test, choices)


def adjusted(
    a_before: Sequence[float], a_after: Sequence[float], b_before: Sequence[float], b_after: Sequence[float]
) -> Effect:
    """How much more of ``after`` the images b have than the images a, allowing for what each had ``before``.

    The analysis of covariance (Fisher 1932): of each image's ``after`` the part is taken away that its ``before``
    predicts, by the slope common to both sets, and what is left is compared by Welch's t. An image that is hard for
    any network is hard before and after; where ``before`` predicts all of it the slope makes this a difference of
    differences, and where it predicts nothing the plain comparison.
    """
    products = squares = 0.0
    for before, after in ((a_before, a_after), (b_before, b_after)):
        x, y = statistics.fmean(before), statistics.fmean(after)
        products += sum((p - x) * (q - y) for p, q in zip(before, after, strict=True))
        squares += sum((p - x) ** 2 for p in before)
    slope = products / squares if squares else 0.0
    left = [
        [q - slope * p for p, q in zip(before, after, strict=True)]
        for before, after in ((a_before, a_after), (b_before, b_after))
    ]
    return two_sample(left[0], left[1], test="analysis of covariance")


def level(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of a stretch of a noisy curve, its standard error and the degrees of freedom; at least two values.

    The noise is judged by the differences of neighbours (von Neumann 1941), which a trend within the stretch hardly
    touches; they know it about two thirds as well as as many independent ones.
    """
    squares = [(b - a) ** 2 for a, b in pairwise(values)]
    return statistics.fmean(values), math.sqrt(sum(squares) / len(squares) / 2 / len(values)), len(squares) / 1.5


def contrast(weights: Sequence[float], rows: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The value and standard error of sum_k weights[k] log(mean of rows[k]), the rows being of the same images.

    The error is that of the mean of sum_k weights[k] x_k / mean_k over images (the delta method).
    """
    means = [statistics.fmean(row) for row in rows]
    value = sum(w * math.log(mean) for w, mean in zip(weights, means, strict=True))
    of_image = [
        sum(w * x / mean for w, x, mean in zip(weights, image, means, strict=True)) for image in zip(*rows, strict=True)
    ]
    return value, mean_error(of_image)


def polynomial_weights(x: Sequence[float]) -> tuple[list[float], list[float]]:
    """Weights on values at ``x`` (three or more) that give the slope of their line, and their curvature.

    The curvature is the coefficient of x^2 of the least-squares parabola; 0 of a straight line.
    """
    centre = statistics.fmean(x)
    u = [value - centre for value in x]
    square = sum(value**2 for value in u)
    slope = [value / square for value in u]
    n = len(u)
    bent = [v * v - square / n - v * sum(w**3 for w in u) / square for v in u]  # x^2 less what 1 and x explain of it
    size = sum(value**2 for value in bent)
    return slope, [value / size for value in bent]
