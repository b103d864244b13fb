"""What training cost, and what a lower loss would."""

import math
import statistics
from collections.abc import Sequence

from unstir.doctor.numbers import is_number
from unstir.progress import duration
from unstir.report.facts import Facts
from unstir.report.held_out import Measurement, read
from unstir.report.statement import Statement
from unstir.report.wording import count, operations, passes, percent, with_error
from unstir.significance import Effect, contrast, effect

TREND_OVER = 20
"""A trend is read from measurements at the last images seen, down to so many times fewer."""

STRAIGHT = 2.0
"""Beyond so many errors a trend counts as bent: fewer than `LEVEL`, for a trend to be followed must be beyond doubt."""

FARTHEST = 100
"""A trend is followed to at most so many times the images."""


def cost(facts: Facts) -> list[Statement]:
    """Sentences on what training took, and on what a lower loss would, if the last trend went on."""
    spent = facts.cost
    speeds = [line["images_per_second"] for line in facts.metrics if is_number(line.get("images_per_second"))]
    median = statistics.median(speeds) if speeds else 0.0
    speed = f", {median:,.{0 if median >= 10 else 1}f} images per second" if speeds else ""
    seen = passes(spent.images, facts.data.counts.get("train", 0))
    text = f"Training took {duration(spent.seconds)} for {count(spent.images, 'image')} ({seen})"
    text += f"{speed}: {operations(spent.training_flops)} by a network of {count(spent.parameters, 'parameter')}, "
    text += f"{operations(spent.forward_flops)} for the forward pass of one image."
    trained = [each for each in read(facts.held_out)[0] if each.step > 0]
    return [Statement("cost", "cost", "cost", "neutral", text), *([_trend(facts, trained)] if trained else [])]


def _trend(facts: Facts, measured: Sequence[Measurement]) -> Statement:
    """The cost of a lower loss from a power law of the images seen, fitted to the last measurements."""
    near = [each for each in measured if TREND_OVER * each.images >= measured[-1].images]
    if len(near) < 3 or min(each.loss for each in near) <= 0:
        return _no_trend("the held-out loss was measured too few times for a trend")
    slope_weights, bend_weights = polynomial_weights([math.log2(each.images) for each in near])
    rows = [each.held_out for each in near]
    slope = effect(*contrast(slope_weights, rows), "slope of a power law")
    bend = effect(*contrast(bend_weights, rows), "curvature")
    last = f"over the last {len(near)} measurements"
    if not slope.decided or slope.value >= 0:
        return _no_trend(f"{last} no decided fall of the held-out loss shows")
    if abs(bend.z or 0.0) > STRAIGHT:
        how = "slows down" if bend.value > 0 else "accelerates"
        bent = f"{abs(bend.value / bend.error):.2g} of its standard errors"
        return _no_trend(f"{last} its fall {how} (the curvature is {bent}), so no power law predicts it")
    return _followed(facts, len(near), slope)


def _no_trend(why: str) -> Statement:
    return Statement("trend", "cost", "losses", "undecided", f"What a lower loss would cost is undecided: {why}.")


def _followed(facts: Facts, num: int, slope: Effect) -> Statement:
    """A trend followed to a loss that is lower by a half, or by a tenth where that is too far."""
    lower, name = next(
        ((share, name) for share, name in ((0.5, "half"), (0.9, "a tenth")) if _times(share, slope.value) <= FARTHEST),
        (0.99, "a hundredth"),
    )
    least, middle, most = (_times(lower, slope.value + k * slope.error) for k in (-1, 0, 1))
    rate, error = 1 - math.exp(slope.value), slope.error * math.exp(slope.value)
    text = f"Over the last {num} measurements each doubling of the images lowered the held-out loss by "
    text += f"{with_error(100 * rate, 100 * error)}%. At that rate a loss lower by {name} "
    if middle > FARTHEST:
        text += f"({percent(1 - lower)}) takes more than {FARTHEST} times the images."
    else:
        text += f"takes {middle:.2g} times the images ({least:.2g} to {most:.2g}), "
        text += f"another {duration((middle - 1) * facts.cost.seconds)}, or more, for a power law has no lower limit"
        text += " and this one includes the falling learning rate." if _falls(facts) else "."
    return Statement("trend", "cost", "losses", "neutral", text, slope)


def _times(lower: float, slope: float) -> float:
    """How many times the images a loss of ``lower`` times the last one takes at ``slope``, d log(loss) a doubling."""
    doublings = math.log(lower) / slope if slope < 0 else math.inf
    return 2.0**doublings if doublings < 60 else math.inf


def _falls(facts: Facts) -> bool:
    return facts.config.train.lr_schedule == "cosine"


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
