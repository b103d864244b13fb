"""How many network calls a sample needs, what training cost, and what a lower loss would."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from unstir.doctor.numbers import numbers
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import LOWER
from unstir.progress import duration
from unstir.report.facts import Facts, Measurement, more_seeds
from unstir.report.statement import Statement
from unstir.report.wording import brief, change, count, listed, operations, passes, percent, shown, size, with_error
from unstir.significance import Effect, Estimate, contrast, difference, effect

TREND_OVER = 20  # a trend is read from measurements at the last images seen, down to so many times fewer
STRAIGHT = 2.0  # beyond so many errors a trend counts as bent: fewer than `LEVEL`, for a trend must be beyond doubt
FARTHEST = 100  # a trend is followed to at most so many times the images


@dataclass(frozen=True)
class Enough:
    """A ``chain`` of few calls: its ``harm`` against the most is not decided, its ``gain`` over a ``worse`` one is.

    The second is what makes the first say something: figures too rough to tell anything apart find no chain enough.
    """

    chain: Evaluation
    harm: Effect
    worse: Evaluation
    gain: Effect


def enough(facts: Facts) -> Enough | None:
    """The fewest calls that do as well as the most, as far as can be told; None where nothing can be told."""
    reference, harms = _harms(facts)
    worse = [each for each, harm in harms if harm.positive]
    for chain, harm in harms:
        if worse and chain not in worse and _calls(chain) < _calls(reference):
            gains = [(_harm(chain, other, len(harms)), other) for other in worse]
            gain, other = max(gains, key=lambda pair: pair[0].z or 0.0)
            if gain.positive:
                return Enough(chain, harm, other, gain)
    return None


def sampling(facts: Facts) -> list[Statement]:
    """Sentences on the fewest network calls that do as well as the most, and where fewer hurt."""
    few = partial(Statement, "enough calls", "sampling", "calls")
    if len(facts.by_chain) < 2:
        text = "How many network calls a sample needs was not measured; `unstir report RUN` "
        return [few("undecided", f"{text}evaluates several samplers with several numbers of calls.")]
    reference, harms = _harms(facts)
    found = []
    if worse := [(each, harm) for each, harm in harms if harm.positive]:
        each = [f"{_chain(chain)} ({change(harm)})" for chain, harm in worse[:4]]
        text = f"Fewer calls hurt: against {_described(reference)} the samples are worse by {listed(each)}."
        surest = max((harm for _, harm in worse), key=lambda harm: harm.z or 0.0)
        found.append(Statement("hurt", "sampling", "calls", "neutral", text, surest))
    if better := [(each, harm) for each, harm in harms if harm.negative]:
        best, harm = min(better, key=lambda pair: pair[1].value)
        text = f"The most calls are not the best: {_described(best)} is better than {_described(reference)} "
        text += f"by {size(harm)}."
        found.append(Statement("better chain", "sampling", "calls", "good", text, harm))
    if (enough_of := enough(facts)) is None:
        text = f"Whether fewer calls than the {_calls(reference):,} of {reference.protocol['sampler']} do as well is "
        return [*found, few("undecided", f"{text}undecided: more seeds ({more_seeds(reference)}) would tell.")]
    text = f"Fewer calls do: {_described(enough_of.chain)} cannot be distinguished from {_described(reference)} (the "
    text += f"difference is {change(enough_of.harm)}), but is better than {_chain(enough_of.worse)} by "
    return [*found, few("good", f"{text}{size(enough_of.gain)}.", enough_of.gain)]


def _harms(facts: Facts) -> tuple[Evaluation, list[tuple[Evaluation, Effect]]]:
    """The chain of most calls (the better of several), and all others by rising calls with how much worse they are."""
    chains = facts.by_chain
    reference = max(chains, key=lambda each: (_calls(each), _harm(each, chains[0]).value))
    others = sorted((each for each in chains if each is not reference), key=_calls)
    return reference, [(each, _harm(reference, each, len(others))) for each in others]


def _harm(a: Evaluation, b: Evaluation, choices: int = 1) -> Effect:
    """How much worse ``b`` is than ``a`` by the main figure of ``a``, positive where it is."""
    key = a.main_key
    sign = 1 if a.main().better == LOWER else -1
    x, y = (Estimate(sign * of.value, of.error, of.df) for of in (a.figures[key].estimate, b.figures[key].estimate))
    return difference(x, y, choices)


def _calls(chain: Evaluation) -> int:
    return int(chain.protocol["calls"])


def _chain(of: Evaluation) -> str:
    """ "ddim with 20 calls"."""
    return f"{of.protocol['sampler']} with {count(_calls(of), 'call')}"


def _described(of: Evaluation) -> str:
    """ "ddim with 20 calls (0.57 +- 0.05)"."""
    return f"{_chain(of)} ({shown(of.main())})"


def cost(facts: Facts) -> list[Statement]:
    """Sentences on what training took, and on what a lower loss would, if the last trend went on."""
    spent, speeds = facts.cost, numbers(facts.metrics, "images_per_second")
    median = statistics.median(speeds) if speeds else 0.0
    speed = f", {median:,.{0 if median >= 10 else 1}f} images per second" if speeds else ""
    seen = (
        "of its teacher's paths" if facts.config.distilled else f"({passes(spent.images, facts.data.counts['train'])})"
    )
    text = f"Training took {duration(spent.seconds)} for {count(spent.images, 'image')} {seen}"
    text += f"{speed}: {operations(spent.training_flops)} by a network of {count(spent.parameters, 'parameter')}, "
    text += f"{operations(spent.forward_flops)} for the forward pass of one image."
    trained = [each for each in facts.measured if each.step > 0]
    near = [each for each in trained if TREND_OVER * each.images >= trained[-1].images]
    return [Statement("cost", "cost", "cost", "neutral", text), *([_trend(facts, near)] if near else [])]


def _trend(facts: Facts, near: Sequence[Measurement]) -> Statement:
    """The cost of a lower loss, by a half or else less, from a power law of images fitted to the last measurements."""
    if len(near) < 3 or min(each.loss for each in near) <= 0:
        return _no_trend("the held-out loss was measured too few times for a trend")
    rows = [each.held_out for each in near]
    slope_weights, bend_weights = polynomial_weights([math.log2(each.images) for each in near])
    slope = effect(*contrast(slope_weights, rows), "slope of a power law")
    bend = effect(*contrast(bend_weights, rows), "curvature")
    last = f"over the last {len(near)} measurements"
    if not slope.decided or slope.value >= 0:
        return _no_trend(f"{last} no decided fall of the held-out loss shows")
    if abs(bend.z or 0.0) > STRAIGHT:
        how = "slows down" if bend.value > 0 else "accelerates"
        bent = f"{brief(abs(bend.errors))} of its standard errors"
        return _no_trend(f"{last} its fall {how} (the curvature is {bent}), so no power law predicts it")
    shares = ((0.5, "half"), (0.9, "a tenth"), (0.99, "a hundredth"))
    near_enough = (each for each in shares if _times(each[0], slope.value) <= FARTHEST)
    lower, name = next(near_enough, shares[-1])
    least, middle, most = (_times(lower, slope.value + k * slope.error) for k in (-1, 0, 1))
    rate, error = 1 - math.exp(slope.value), slope.error * math.exp(slope.value)
    text = f"Over the last {len(near)} measurements each doubling of the images lowered the held-out loss by "
    text += f"{with_error(100 * rate, 100 * error)}%. At that rate a loss lower by {name} "
    if middle > FARTHEST:
        text += f"({percent(1 - lower)}) takes more than {FARTHEST} times the images."
    else:
        text += f"takes {brief(middle)} times the images ({brief(least)} to {brief(most)}), "
        text += f"another {duration((middle - 1) * facts.cost.seconds)}, or more, for a power law has no lower limit"
        falls = facts.config.train.lr_schedule != "constant"
        text += " and this one includes the falling learning rate." if falls else "."
    return Statement("trend", "cost", "losses", "neutral", text, slope)


def _no_trend(why: str) -> Statement:
    return Statement("trend", "cost", "losses", "undecided", f"What a lower loss would cost is undecided: {why}.")


def _times(lower: float, slope: float) -> float:
    """How many times the images a loss of ``lower`` times the last one takes at ``slope``, d log(loss) a doubling."""
    doublings = math.log(lower) / slope if slope < 0 else math.inf
    return 2.0**doublings if doublings < 60 else math.inf


def polynomial_weights(x: Sequence[float]) -> tuple[list[float], list[float]]:
    """Weights on values at ``x`` (three or more) that give the slope of their line, and their curvature.

    The curvature is the coefficient of x^2 of the least-squares parabola; 0 of a straight line.
    """
    u = np.asarray(x) - np.mean(x)
    slope, curvature = (np.linalg.pinv(np.vander(u, degree + 1))[0] for degree in (1, 2))
    return slope.tolist(), curvature.tolist()
