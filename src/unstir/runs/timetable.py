"""What happens when in a run, as pure functions of its settings and the step, so that none of it needs to be saved."""

import math
from collections.abc import Callable
from pathlib import Path

from unstir.runs.config import log_spaced
from unstir.runs.run import Run
from unstir.runs.sections import TrainConfig

START = "start"  # the name of the snapshot of step 0, the untrained network


def snapshots(run: Run) -> dict[int, str]:
    """The optimiser steps of snapshots, rising, each with its name: the held-out loss is measured there, a grid of
    samples is drawn and a slim weight file kept.

    Step 0, "start", is the untrained network. With grids.epochs they are the ends of those epochs, counted from 0
    ("epoch-0050"); otherwise log_spaced steps, each a constant factor after the last, from a thousandth of the run to
    its end, named by images seen ("images-00012800"). The last step is always one.
    """
    cfg, length = run.config.grids, run.length
    if cfg.epochs:
        named = {(epoch + 1) * run.steps_per_epoch: f"epoch-{epoch:04d}" for epoch in cfg.epochs}
        named.setdefault(length, f"end-{length:08d}")
    else:
        steps = log_spaced(length, cfg.log_spaced)
        named = {step: f"images-{step * run.config.train.batch_size:08d}" for step in steps}
    named[0] = START
    return {step: name for step, name in sorted(named.items()) if step <= length}


def all_snapshots(run: Run) -> dict[int, str]:
    """As `snapshots`, with those that were drawn when the run had another length or other grids.epochs."""
    batch, found = run.config.train.batch_size, {}
    steps_of = {
        "epoch": lambda number: (number + 1) * run.steps_per_epoch,
        "images": lambda number: number // batch,
        "end": lambda number: number,
    }
    for file in run.samples.glob("*-*.png"):
        kind, _, number = file.stem.partition("-")
        if kind in steps_of and number.isdecimal():
            found[steps_of[kind](int(number))] = file.stem
    return dict(sorted({**found, **snapshots(run)}.items()))


def grid_file(run: Run, name: str) -> Path:
    """The grid of samples of the snapshot of this name."""
    return run.samples / f"{name}.png"


def newest_grid(run: Run) -> Path | None:
    """The grid of the last snapshot that was drawn; None before the first."""
    drawn = [file for name in all_snapshots(run).values() if (file := grid_file(run, name)).exists()]
    return drawn[-1] if drawn else None


def learning_rates(run: Run) -> Callable[[int], float]:
    """The learning rate as a function of the optimiser step, counted from 0.

    It rises linearly from warmup_start * lr to lr over the warm-up, then stays, or falls as half a cosine towards 0
    over lr_period (which may be longer than the run), or stays and falls linearly to 0 over the last lr_period ("wsd":
    warm-up, stable, decay; Hu et al. 2024). With lr_every = "epoch" it is that of the epoch's first step;
    a warm-up from 0 counts the step or epoch being taken, so that no step is wasted.
    """
    cfg, length = run.config.train, run.length
    warmup, period = run.steps_in(cfg.warmup), run.steps_in(cfg.lr_period)
    every = run.steps_per_epoch if cfg.lr_every == "epoch" else 1

    def rate(step: int) -> float:
        step -= step % every
        if step < warmup:
            if cfg.warmup_start == 0:
                step += every
            return cfg.lr * (cfg.warmup_start + (1 - cfg.warmup_start) * min(step / warmup, 1))
        if cfg.lr_schedule == "constant":
            return cfg.lr
        if cfg.lr_schedule == "wsd":
            return cfg.lr * min(1, (length - step) / period)
        return cfg.lr * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / period, 1)))

    return rate


def ema_decay(config: TrainConfig, step: int) -> float:
    """The decay of the average's update after optimiser step ``step``, counted from 0; 0 where there is no average.

    Without a warm-up an average of decay 0.9999 still is 37% initial weights after 10,000 steps; with it the decay is
    at most n / (9 + n) at update n = 1, 2, ..., so that early averages span the last tenth of the steps.
    """
    return min(config.ema_decay, (1 + step) / (10 + step)) if config.ema_warmup else config.ema_decay
