"""Checks of the averaged weights, from which a run is sampled, and of the weights themselves."""

import math
from collections.abc import Iterator

import torch

from unstir.doctor.facts import Errors, RunFacts
from unstir.doctor.finding import Finding, check
from unstir.doctor.numbers import Lines, logged_errors, times
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run
from unstir.runs.timetable import ema_decay
from unstir.significance import effect, mean_of, paired

# Thresholds; docs/doctor.md has what trained runs measure.
INITIAL_WARNING, INITIAL_PROBLEM = 0.01, 0.1  # share of the average that is still initial weights
BEHIND_WARNING, BEHIND_PROBLEM = 1.1, 1.5  # times the loss of the raw weights
LOSS = 1.5  # times the loss of the log's last lines


def initial_share(run: Run, steps: int) -> float:
    """The share of the average after ``steps`` updates that is the initial weights: the product of the decays."""
    share = 1.0
    for step in range(steps):
        share *= ema_decay(run.config.train, step)
        if share < 1e-20:  # a long run gets there early
            return 0.0
    return share


@check("slow-average", "the average of the weights is too slow for the run")
def slow_average(facts: RunFacts) -> Iterator[Finding]:
    """Initial weights that are left in the average at the run's end."""
    run = facts.run
    cfg = run.config.train
    share = initial_share(run, run.length)
    if share > INITIAL_WARNING and not cfg.init:
        better = next((d for d in (0.9999, 0.9995, 0.999, 0.995, 0.99) if d**run.length < INITIAL_WARNING), 0.9)
        yield Finding(
            "problem" if share > INITIAL_PROBLEM else "warning",
            f"with train.ema_decay={cfg.ema_decay:g} and no warm-up {share:.1%} of the average after {run.length} "
            f"steps is initial weights; at most {INITIAL_WARNING:.0%} is harmless",
            f"a new run with --train.ema_warmup, or with --train.ema_decay {better:g}; sample this one with --no-ema",
            share,
            INITIAL_WARNING,
        )


@check("average-behind", "the averaged weights are worse than the raw ones")
def average_behind(facts: RunFacts, errors: Errors) -> Iterator[Finding]:
    """An average whose loss is clearly above that of the weights it averages, on the same images, times and noise."""
    if errors.raw is None or errors.average is None:
        return
    behind = paired(errors.raw.tolist(), errors.average.tolist())
    average, raw = errors.average.mean().item(), errors.raw.mean().item()
    ratio = average / raw if raw else math.inf
    if ratio > BEHIND_WARNING and (behind.positive or not math.isfinite(ratio)):
        yield Finding(
            "problem" if ratio > BEHIND_PROBLEM and facts.finished else "warning",
            f"the squared error of the average is {average:.4g}, that of the raw weights {raw:.4g}: {times(ratio)} "
            f"({behind.errors:.0f} standard errors, {len(errors.raw)} training images); at most {BEHIND_WARNING} is "
            "usual",
            "sample with --no-ema; in a new run --train.ema_warmup, a lower --train.ema_decay such as 0.999, or a "
            "learning rate that falls (--train.lr_schedule cosine)",
            ratio,
            BEHIND_WARNING,
        )


@check("weights-loss", "the saved weights do not have the loss that was logged")
def weights_loss(facts: RunFacts, errors: Errors, loaded: Checkpoint, lines: Lines) -> Iterator[Finding]:
    """Saved weights whose loss is far above the one logged when they were saved."""
    measured = errors.average if errors.raw is None else errors.raw
    logged = logged_errors([line for line in lines if line["step"] <= loaded.step][-3:])
    if measured is None or not logged:
        return
    usual = math.fsum(logged) / len(logged)
    mean, error, df = mean_of(measured.tolist())
    above = effect(mean - usual, error, df, "Student's t")
    if not mean <= LOSS * usual and (above.decided or not math.isfinite(mean)):
        yield Finding(
            "problem",
            f"their squared error is {mean:.4g} (mean of {len(measured)} training images), the log's up to step "
            f"{loaded.step} is {usual:.4g}; at most {LOSS} times that is usual",
            "the weights were trained with other data, or the file is another one: check the store and the checkpoints "
            "and go back to an earlier step (--checkpoint)",
            mean / usual if usual else math.inf,
            LOSS,
        )


@check("weights-finite", "weights are not finite")
def weights_finite(facts: RunFacts, loaded: Checkpoint) -> Iterator[Finding]:
    """Weights that are NaN or infinite in the newest file."""
    broken = [name for name, t in loaded.tensors.items() if not bool(torch.isfinite(t).all())]
    if broken:
        yield Finding(
            "problem",
            f"{len(broken)} of {len(loaded.tensors)} tensors of step {loaded.step} hold NaN or infinity, the first "
            f"is {broken[0]}; none may",
            "delete that checkpoint and continue from the one before; if there is none, start a new run with a lower "
            "--train.lr",
            len(broken),
            0,
        )
