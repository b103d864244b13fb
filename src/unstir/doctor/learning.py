"""Checks of how the loss went: rates too high or too low, clipping, and lengths that do not fit each other.

The figures are the lines of metrics.jsonl, each a mean over some steps. Their own unrest, taken from the differences of
neighbours, is what a spike or a rise is held against, so that logs of single small batches do not alarm.
"""

import math
from itertools import pairwise
from typing import Any

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Check, Finding, is_number, median, short, times
from unstir.doctor.measure import outputs_nothing
from unstir.doctor.remedies import higher_rate, lower_rate
from unstir.significance import effect

SPIKE, SPIKE_UNRESTS = 1.6, 8.0
"""Times the median of the lines before, and the multiple of the log's unrest. Trained runs: at most 1.1 times."""

RISE, FALL = 1.15, 1.15
"""The last quarter of the lines over the best, and the third over the last. Trained runs: at most 1.05; 1.03."""

FEWEST = 8
"""Lines below which nothing is said of a trend."""

BITES, LEAP = 0.5, 3.0
"""Share of the steps clipped after the warm-up (trained runs: 0.00); times the median that makes a norm a leap."""

START = 1.5
"""Times the error of an output of 0, which is where a network begins. Trained runs: their first lines are below 1."""


def settled(facts: RunFacts) -> list[dict[str, Any]]:
    """The lines after the warm-up with a finite loss; the first of them, which still falls fast, is left out."""
    warm = facts.run.steps_in(facts.run.config.train.warmup)
    return [line for line in facts.lines if line["step"] > warm and _finite(line)][1:]


def _finite(line: dict[str, Any]) -> bool:
    return is_number(line.get("loss"))


def _norms(lines: list[dict[str, Any]]) -> list[float]:
    return [norm for line in lines if is_number(norm := line.get("grad_norm"))]


def _unrest(logs: list[float]) -> float:
    """The std of one line about the trend, from the median absolute difference of neighbours (normal noise)."""
    return 1.4826 / math.sqrt(2) * median([abs(b - a) for a, b in pairwise(logs)])


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def not_finite(facts: RunFacts) -> Finding | None:
    """Steps skipped because their gradient was not finite, and losses that are not."""
    last = facts.lines[-1]
    skipped = int(last["skipped"]) if is_number(last.get("skipped")) else 0
    without = sum(not _finite(line) for line in facts.lines)
    if not skipped and not without:
        return None
    share = max(skipped / max(last["step"], 1), without / len(facts.lines))
    return Finding(
        "not-finite",
        "problem" if share > 0.01 or not _finite(last) else "warning",
        "gradients were not finite",
        f"{skipped} of {last['step']} steps were skipped and {without} of {len(facts.lines)} lines have no finite "
        "loss; none should",
        f"a new run with a lower rate (--train.lr {lower_rate(facts.run.config):.2g}) and with --train.clip 1",
        share,
        0.0,
    )


def spikes(facts: RunFacts) -> Finding | None:
    """Lines whose loss leaps above those before."""
    lines = settled(facts)
    logs = [math.log(max(line["loss"], 1e-12)) for line in lines]
    if len(logs) < FEWEST or any(line["loss"] <= 0 for line in lines):
        return None
    limit = max(math.log(SPIKE), SPIKE_UNRESTS * _unrest(logs))
    leaps = [(logs[i] - median(logs[max(0, i - 8) : i]), lines[i]) for i in range(3, len(logs))]
    found = [(leap, line) for leap, line in leaps if leap > limit]
    if not found:
        return None
    leap, line = max(found, key=lambda pair: pair[0])
    config = facts.run.config
    clip = "" if config.train.clip else ", and --train.clip 1"
    return Finding(
        "loss-spikes",
        "problem" if len(found) > 0.05 * len(logs) and len(found) > 1 else "warning",
        "the loss leaps: the learning rate is too high",
        f"{len(found)} of {len(logs)} lines; at step {line['step']} it is {times(math.exp(leap))} the median of the "
        f"lines before; at most {math.exp(limit):.1f} is usual in this log",
        f"--train.lr {lower_rate(config):.2g} in a new run{clip}",
        math.exp(leap),
        math.exp(limit),
    )


def rising(facts: RunFacts) -> Finding | None:
    """A loss that ends above where it has been."""
    quarters, error, df = _quarters(facts)
    if not quarters:
        return None
    gap = quarters[-1] - min(quarters[:-1])
    if gap <= math.log(RISE) or not _decided(gap, error, df, choices=3):
        return None
    return Finding(
        "loss-rises",
        "problem",
        "the loss rises",
        f"in the last quarter of the log it is {times(math.exp(gap))} that of the best quarter; at most {RISE} "
        "is usual",
        f"a new run with a lower rate, --train.lr {lower_rate(facts.run.config):.2g}, or with "
        "--train.lr_schedule cosine; sample an earlier step of this one with --checkpoint",
        math.exp(gap),
        RISE,
    )


def still_falling(facts: RunFacts) -> Finding | None:
    """A finished run whose loss still falls steeply: it was ended too soon, or its rate is too low."""
    quarters, error, df = _quarters(facts)
    if not quarters or not facts.finished:
        return None
    gap = quarters[-2] - quarters[-1]
    if gap <= math.log(FALL) or not _decided(gap, error, df):
        return None
    rate = higher_rate(facts.run.config)
    faster = "" if rate is None else f", or begin anew with a higher rate, --train.lr {rate:.2g}"
    return Finding(
        "still-falling",
        "warning",
        "the loss still falls steeply where the run ends",
        f"in the last quarter of the log it is {math.exp(-gap):.2f} of that in the quarter before; at least "
        f"{1 / FALL:.2f} is usual",
        f'go on for longer, --train.length "{2 * facts.run.length} steps" (with a cosine --train.lr_period too)'
        + faster,
        math.exp(-gap),
        1 / FALL,
    )


def _quarters(facts: RunFacts) -> tuple[list[float], float, float]:
    """The median log-loss of each quarter of the settled lines, and the error of a difference with its freedom.

    None for a short log. Medians of neighbours' differences tell the unrest about as well as half as many lines would.
    """
    lines = settled(facts)
    if len(lines) < FEWEST or any(line["loss"] <= 0 for line in lines):
        return [], 0.0, 1.0
    logs, n = [math.log(line["loss"]) for line in lines], len(lines) // 4
    logs = logs[-4 * n :]
    error = 1.25 * _unrest(logs) * math.sqrt(2 / n)  # a median's is 1.25 that of a mean, where noise is normal
    return [median(logs[i : i + n]) for i in range(0, 4 * n, n)], error, 2.0 * n


def _decided(gap: float, error: float, df: float, choices: int = 1) -> bool:
    """Whether quarters differ; lines that do not scatter at all leave no chance."""
    return not error or effect(gap, error, df, "medians of quarters", choices).decided


def first_loss(facts: RunFacts) -> Finding | None:
    """A first line far above the error of an output of 0, with which every network here begins."""
    assert facts.images is not None
    first = squared_error(facts.lines[0])
    expected = outputs_nothing(facts.run, facts.images.mean, facts.images.std)
    if facts.run.config.train.init or first is None or first <= START * expected:
        return None
    return Finding(
        "first-loss",
        "problem",
        "the loss begins above that of an untrained network",
        f"over the first {facts.lines[0]['step']} steps the squared error is {first:.4g}; an output of 0 has "
        f"{expected:.4g}, and at most {START} times that is usual",
        f"a new run with a warm-up (--train.warmup) and a lower rate, --train.lr {lower_rate(facts.run.config):.2g}",
        first / expected,
        START,
    )


def squared_error(line: dict[str, Any]) -> float | None:
    """The mean squared error of a line of the log; None where it has no finite one."""
    value = line.get("mse", line.get("loss"))
    return float(value) if is_number(value) else None


def clipping(facts: RunFacts) -> Finding | None:
    """Clipping that bites at nearly every step, so that it is no guard against the rare one."""
    cfg, lines = facts.run.config.train, settled(facts)
    if not cfg.clip or not _norms(lines):
        return None
    share = _mean([line["clipped"] if is_number(line.get("clipped")) else 0.0 for line in lines])
    if share <= BITES:
        return None
    norm = median(_norms(lines))
    usual = cfg.loss_scale == 1 and facts.run.config.loss.is_simple
    return Finding(
        "clipping",
        "warning" if usual else "note",  # a scaled loss and the bound have large gradients by nature
        "the gradient is clipped at nearly every step",
        f"after the warm-up {share:.0%} of the steps; its norm is {norm:.2g} where train.clip={cfg.clip:g}; at most "
        f"{BITES:.0%} is usual",
        f"a new run with --train.clip {short(2 * norm)}, which cuts only what stands out. Adam divides by the "
        "gradient's size, so a lower --train.lr would do something else: it shortens every step and stops no spike",
        share,
        BITES,
    )


def unclipped(facts: RunFacts) -> Finding | None:
    """Gradients that leap where nothing clips them."""
    norms = _norms(settled(facts))
    if facts.run.config.train.clip or len(norms) < FEWEST:
        return None
    usual, highest = median(norms), max(norms)
    if highest <= LEAP * usual:
        return None
    leap = highest / usual if usual else math.inf
    return Finding(
        "unclipped",
        "warning",
        "gradients leap and are not clipped",
        f"a line's mean norm is {highest:.2g}, {times(leap)} the median; at most {LEAP:g} is usual",
        f"a new run with --train.clip {short(2 * usual)}",
        leap,
        LEAP,
    )


CHECKS = (
    Check("not-finite", "steps skipped, losses that are no number", not_finite, ("lines",)),
    Check("loss-spikes", "leaps of the loss", spikes, ("lines",)),
    Check("loss-rises", "the last quarter of the log against the best", rising, ("lines",)),
    Check("still-falling", "the last quarter of the log against the one before", still_falling, ("lines",)),
    Check("first-loss", "where the loss begins", first_loss, ("lines", "images")),
    Check("clipping", "how often the gradient is clipped", clipping, ("lines",)),
    Check("unclipped", "leaps of a gradient that nothing clips", unclipped, ("lines",)),
)
