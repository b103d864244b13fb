"""Checks of the averaged weights, which is what a run is sampled from, and of the weights themselves."""

import math

import torch

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Check, Finding, is_number, times
from unstir.runs.moments import ema_decay
from unstir.runs.run import Run
from unstir.significance import effect, mean_of, paired

INITIAL_WARNING, INITIAL_PROBLEM = 0.01, 0.1
"""Share of the average that is still initial weights. With the warm-up it is under 1e-9 after 100 steps."""

BEHIND_WARNING, BEHIND_PROBLEM = 1.1, 1.5
"""Times the loss of the raw weights. In trained runs the average's is 1.00 of it, for their rates have fallen to 0."""

LOSS = 1.5
"""Times the loss of the log's last lines. In trained runs: 0.99 to 1.02; 1.19 with a vlb, whose log is rougher."""


def initial_share(run: Run, steps: int) -> float:
    """The share of the average after ``steps`` updates that is the initial weights: the product of the decays."""
    cfg = run.config.train
    total = 0.0
    for step in range(steps):
        decay = ema_decay(cfg, step)
        if decay == 0 or total < -50:
            return 0.0
        if decay == cfg.ema_decay:
            return math.exp(total + (steps - step) * math.log(decay))
        total += math.log(decay)
    return math.exp(total)


def slow_average(facts: RunFacts) -> Finding | None:
    """Initial weights that are left in the average at the run's end."""
    run = facts.run
    cfg = run.config.train
    if not cfg.ema_decay or cfg.init:
        return None
    share = initial_share(run, run.length)
    if share <= INITIAL_WARNING:
        return None
    better = next((d for d in (0.9999, 0.9995, 0.999, 0.995, 0.99) if d**run.length < INITIAL_WARNING), 0.9)
    return Finding(
        "slow-average",
        "problem" if share > INITIAL_PROBLEM else "warning",
        "the average of the weights is too slow for the run",
        f"with train.ema_decay={cfg.ema_decay:g} and no warm-up {share:.1%} of the average after {run.length} steps "
        f"is initial weights; at most {INITIAL_WARNING:.0%} is harmless",
        f"a new run with --train.ema_warmup, or with --train.ema_decay {better:g}; sample this one with --no-ema",
        share,
        INITIAL_WARNING,
    )


def average_behind(facts: RunFacts) -> Finding | None:
    """An average whose loss is clearly above that of the weights it averages, on the same images, times and noise."""
    errors = facts.errors
    assert errors is not None
    if errors.raw is None or errors.average is None:
        return None
    behind = paired(errors.raw.tolist(), errors.average.tolist())
    average, raw = errors.average.mean().item(), errors.raw.mean().item()
    ratio = average / raw if raw else math.inf
    if not ratio > BEHIND_WARNING or (math.isfinite(ratio) and not behind.positive):
        return None
    return Finding(
        "average-behind",
        "problem" if ratio > BEHIND_PROBLEM and facts.finished else "warning",
        "the averaged weights are worse than the raw ones",
        f"the squared error of the average is {average:.4g}, that of the raw weights {raw:.4g}: {times(ratio)} "
        f"({behind.errors:.0f} standard errors over {len(errors.raw)} training images); "
        f"at most {BEHIND_WARNING} is usual",
        "sample with --no-ema; in a new run --train.ema_warmup, a lower --train.ema_decay such as 0.999, or a learning "
        "rate that falls (--train.lr_schedule cosine)",
        ratio,
        BEHIND_WARNING,
    )


def weights_finite(facts: RunFacts) -> Finding | None:
    """Weights that are NaN or infinite in the newest file."""
    assert facts.loaded is not None
    broken = [name for name, t in facts.loaded.tensors.items() if not bool(torch.isfinite(t).all())]
    if not broken:
        return None
    return Finding(
        "weights-finite",
        "problem",
        "weights are not finite",
        f"{len(broken)} of {len(facts.loaded.tensors)} tensors of step {facts.loaded.step} hold NaN or infinity, "
        f"the first is {broken[0]}; none may",
        "delete that checkpoint and continue from the one before; if there is none, begin anew with a lower --train.lr",
        len(broken),
        0,
    )


def weights_loss(facts: RunFacts) -> Finding | None:
    """Saved weights whose loss is far above the one logged when they were saved."""
    errors, loaded = facts.errors, facts.loaded
    assert errors is not None and loaded is not None
    measured = errors.average if errors.raw is None else errors.raw
    lines = [line for line in facts.lines if line["step"] <= loaded.step][-3:]
    values = [line.get("mse", line.get("loss")) for line in lines]
    logged = [float(value) for value in values if is_number(value)]
    if measured is None or not logged:
        return None
    usual = math.fsum(logged) / len(logged)
    mean, error, df = mean_of(measured.tolist())
    above = effect(mean - usual, error, df, "Student's t")
    if mean <= LOSS * usual or (math.isfinite(mean) and not above.decided):
        return None
    return Finding(
        "weights-loss",
        "problem",
        "the saved weights do not have the loss that was logged",
        f"their squared error is {mean:.4g} over {len(measured)} training images, the log's up to step {loaded.step} "
        f"is {usual:.4g}; at most {LOSS} times that is usual",
        "the data or the file are not those that were trained with: look at the store and the checkpoints, and go back "
        "to an earlier step (--checkpoint)",
        mean / usual,
        LOSS,
    )


CHECKS = (
    Check("slow-average", "initial weights left in the average", slow_average),
    Check("average-behind", "loss of the averaged weights against the raw ones", average_behind, ("errors",)),
    Check("weights-loss", "loss of the saved weights against the log", weights_loss, ("errors", "loaded", "lines")),
    Check("weights-finite", "NaN and infinity in the weights", weights_finite, ("loaded",)),
)
