"""Checks of how the loss went: rates too high or too low, clipping, and lengths that do not fit each other.

The data are the lines of metrics.jsonl, each a mean over some steps. Spikes and rises are compared with the scatter of
the log itself, from the differences of neighbours, so that logs of single small batches raise no alarm.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Finding, check
from unstir.doctor.image_stats import ImageStats
from unstir.doctor.measure import outputs_nothing
from unstir.doctor.numbers import Line, Lines, is_number, logged_errors, median, numbers, short, times
from unstir.doctor.remedies import higher_rate, lower_rate
from unstir.significance import Estimate, difference

# Thresholds; docs/doctor.md has what trained runs measure.
SPIKE, SPIKE_SCATTERS = 1.6, 8.0  # times the median of the lines before, and the multiple of the log's scatter
RISE, FALL = 1.15, 1.15  # the last quarter of the lines over the best, and the third over the last
FEWEST = 8  # lines; with fewer there is no verdict on a trend
CLIPPED = 0.5  # share of the steps clipped after the warm-up
LEAP = 3.0  # times the median that makes a gradient norm a leap
START = 1.5  # times the error of an output of 0, which is where a network begins


def settled(facts: RunFacts) -> list[Line]:
    """The lines after the warm-up with a finite loss; the first of them, which still falls fast, is left out."""
    warm = facts.run.steps_in(facts.run.config.train.warmup)
    return [line for line in facts.lines if line["step"] > warm and is_number(line.get("loss"))][1:]


def _logs(lines: list[Line]) -> list[float]:
    """The logarithms of the losses; none of too few lines, or where a loss is 0."""
    if len(lines) < FEWEST or any(line["loss"] <= 0 for line in lines):
        return []
    return [math.log(line["loss"]) for line in lines]


def _scatter(logs: Sequence[float]) -> float:
    """The std of one line about the trend, from the median absolute difference of neighbours (normal noise)."""
    return 1.4826 / math.sqrt(2) * median([abs(b - a) for a, b in pairwise(logs)])


@check("not-finite", "gradients were not finite")
def not_finite(facts: RunFacts, lines: Lines) -> Iterator[Finding]:
    """Steps skipped because their gradient was not finite, and losses that are not finite."""
    last = lines[-1]
    skipped = int(last["skipped"]) if is_number(last.get("skipped")) else 0
    without = len(lines) - len(numbers(lines, "loss"))
    if skipped or without:
        share = max(skipped / max(last["step"], 1), without / len(lines))
        yield Finding(
            "problem" if share > 0.01 or not is_number(last.get("loss")) else "warning",
            f"{skipped} of {last['step']} steps were skipped and {without} of {len(lines)} lines have no finite "
            "loss; none should",
            f"a new run with a lower rate (--train.lr {lower_rate(facts.run.config):.2g}) and with --train.clip 1",
            share,
            0.0,
        )


@check("loss-spikes", "the loss leaps: the learning rate is too high")
def spikes(facts: RunFacts, lines: Lines) -> Iterator[Finding]:
    """Lines whose loss leaps above those before."""
    after = settled(facts)
    logs = _logs(after)
    limit = max(math.log(SPIKE), SPIKE_SCATTERS * _scatter(logs))
    leaps = [logs[i] - median(logs[max(0, i - 8) : i]) for i in range(3, len(logs))]
    num = sum(leap > limit for leap in leaps)
    if num:
        leap = max(leaps)
        config = facts.run.config
        clip = "" if config.train.clip else ", and --train.clip 1"
        yield Finding(
            "problem" if num > 0.05 * len(logs) and num > 1 else "warning",
            f"{num} of {len(logs)} lines; at step {after[3 + leaps.index(leap)]['step']} it is {times(math.exp(leap))} "
            f"the median of the lines before; at most {math.exp(limit):.1f} is usual in this log",
            f"--train.lr {lower_rate(config):.2g} in a new run{clip}",
            math.exp(leap),
            math.exp(limit),
        )


@check("loss-rises", "the loss rises")
def rising(facts: RunFacts, lines: Lines) -> Iterator[Finding]:
    """A loss that ends above where it has been."""
    quarters = _quarters(facts)
    gap = _rise(min(quarters[:-1]), quarters[-1], choices=3) if quarters else 0.0
    if gap > math.log(RISE):
        yield Finding(
            "problem",
            f"in the last quarter of the log it is {times(math.exp(gap))} that of the best quarter; at most {RISE} "
            "is usual",
            f"a new run with a lower rate, --train.lr {lower_rate(facts.run.config):.2g}, or with "
            "--train.lr_schedule cosine; sample an earlier step of this one with --checkpoint",
            math.exp(gap),
            RISE,
        )


@check("still-falling", "the loss still falls steeply where the run ends")
def still_falling(facts: RunFacts, lines: Lines) -> Iterator[Finding]:
    """A finished run whose loss still falls steeply: it ended too soon, or its rate is too low."""
    quarters = _quarters(facts) if facts.finished else []
    gap = _rise(quarters[-1], quarters[-2]) if quarters else 0.0
    if gap > math.log(FALL):
        rate = higher_rate(facts.run.config)
        yield Finding(
            "warning",
            f"in the last quarter of the log it is {math.exp(-gap):.2f} of that in the quarter before; at least "
            f"{1 / FALL:.2f} is usual",
            f'go on for longer, --train.length "{2 * facts.run.length} steps" (with a cosine --train.lr_period too)'
            + ("" if rate is None else f", or start a new run with a higher rate, --train.lr {rate:.2g}"),
            math.exp(-gap),
            1 / FALL,
        )


def _quarters(facts: RunFacts) -> list[Estimate]:
    """The median log-loss of each quarter of the settled lines; none for a short log.

    Medians of neighbours' differences measure the scatter about as well as half as many lines would.
    """
    logs = _logs(settled(facts))
    n = len(logs) // 4
    logs = logs[-4 * n :]
    error = 1.25 * _scatter(logs) / math.sqrt(n) if n else 0.0  # a median's is 1.25 that of a mean, for normal noise
    return [Estimate(median(logs[i * n : (i + 1) * n]), error, n) for i in range(4) if n]


def _rise(before: Estimate, after: Estimate, choices: int = 1) -> float:
    """How much the log-loss rose, 0 where that is not decided; it is where lines do not scatter at all."""
    found = difference(before, after, choices, "medians of quarters")
    return found.value if found.decided or not found.error else 0.0


@check("first-loss", "the loss begins above that of an untrained network")
def first_loss(facts: RunFacts, lines: Lines, images: ImageStats) -> Iterator[Finding]:
    """A first line far above the error of an output of 0, with which every network here begins."""
    first = logged_errors(lines[:1])
    expected = outputs_nothing(facts.run, images.mean, images.std)
    if first and first[0] > START * expected and not facts.run.config.train.init:
        yield Finding(
            "problem",
            f"over the first {lines[0]['step']} steps the squared error is {first[0]:.4g}; an output of 0 has "
            f"{expected:.4g}, and at most {START} times that is usual",
            "a new run with a warm-up (--train.warmup) and a lower rate, "
            f"--train.lr {lower_rate(facts.run.config):.2g}",
            first[0] / expected,
            START,
        )


@check("clipping", "the gradient is clipped at nearly every step")
def clipping(facts: RunFacts, lines: Lines) -> Iterator[Finding]:
    """Clipping at nearly every step, where it should cut only rare large gradients."""
    cfg, after = facts.run.config.train, settled(facts)
    norms = numbers(after, "grad_norm")
    share = math.fsum(numbers(after, "clipped")) / max(len(after), 1)
    if not cfg.clip or not norms or share <= CLIPPED:
        return
    norm = median(norms)
    usual = cfg.loss_scale == 1 and facts.run.config.loss.is_simple
    yield Finding(
        "warning" if usual else "note",  # a scaled loss and the bound have large gradients by nature
        f"after the warm-up {share:.0%} of the steps; its norm is {norm:.2g} where train.clip={cfg.clip:g}; at most "
        f"{CLIPPED:.0%} is usual",
        f"a new run with --train.clip {short(2 * norm)}, which cuts only what stands out. Adam divides by the "
        "gradient's size, so a lower --train.lr would do something else: it shortens every step and stops no spike",
        share,
        CLIPPED,
    )


@check("unclipped", "gradients leap and are not clipped")
def unclipped(facts: RunFacts, lines: Lines) -> Iterator[Finding]:
    """Gradients that leap where nothing clips them."""
    norms = numbers(settled(facts), "grad_norm")
    usual, highest = median(norms), max(norms, default=0.0)
    if highest > LEAP * usual and len(norms) >= FEWEST and not facts.run.config.train.clip:
        leap = highest / usual if usual else math.inf
        yield Finding(
            "warning",
            f"a line's mean norm is {highest:.2g}, {times(leap)} the median; at most {LEAP:g} is usual",
            f"a new run with --train.clip {short(2 * usual)}",
            leap,
            LEAP,
        )
