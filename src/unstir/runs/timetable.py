"""What happens when in a run, as pure functions of its settings and the step, so that none of it needs to be saved.

The span of a learning rate that a new run leaves open is settled here, and what would train at no rate is refused.
Which grids were drawn, and which files in the folder are not of the run, is read from there.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from unstir.errors import KeptSettingsError, UserError
from unstir.progress import counted
from unstir.runs.checkpoint import listed
from unstir.runs.files import is_of
from unstir.runs.run import Run
from unstir.runs.sections import TrainConfig

START = "start"  # the snapshot of step 0, the untrained network


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
        spaced = (max(1, round(length * 1000 ** (k / cfg.log_spaced - 1))) for k in range(1, cfg.log_spaced + 1))
        named = {step: f"images-{run.images_seen(step):08d}" for step in (*spaced, length)}
    named[0] = START
    return {step: name for step, name in sorted(named.items()) if step <= length}


def all_snapshots(run: Run) -> dict[int, str]:
    """As `snapshots`, with those that were drawn when the run had another length or other grids.epochs."""
    found = {}
    for file in run.samples.glob("*-*.png"):
        kind, _, text = file.stem.partition("-")
        if text.isdecimal():
            number, batch = int(text), run.config.train.batch_size
            steps = {"epoch": (number + 1) * run.steps_per_epoch, "images": number // batch, "end": number}
            if kind in steps:
                found[steps[kind]] = file.stem
    return dict(sorted({**found, **snapshots(run)}.items()))


def grid_file(run: Run, name: str) -> Path:
    """The grid of samples of the snapshot of this name."""
    return run.samples / f"{name}.png"


def drawn_grid(run: Run, name: str) -> Path | None:
    """The grid of the snapshot of this name; None where none was drawn by this run."""
    file = grid_file(run, name)
    return file if file.exists() and is_of(file, run=run.data.run) else None


MARKED = (
    *("curves.png", "losses.png", "samples/*.png", "evaluation/*.png", "likelihood/*.png"),
    *("generated/*/*.json", "edits/**/*.json"),
)
"""Pictures, and settings next to some, that name the run which made them."""


def foreign(run: Run) -> list[Path]:
    """The files of weights, and those of `MARKED`, in the folder of a run that do not name it."""
    own, folders = run.saved, (run.checkpoints, run.weights)
    weights = [path for folder in folders for step, path in listed(folder) if (step, path) not in own]
    marked = [path for pattern in MARKED for path in sorted(run.path.glob(pattern))]
    return weights + [path for path in marked if not is_of(path, run=run.data.run)]


def newest_grid(run: Run) -> Path | None:
    """The grid of the last snapshot that was drawn; None before the first."""
    return next((file for name in reversed(all_snapshots(run).values()) if (file := drawn_grid(run, name))), None)


def learning_rates(run: Run) -> Callable[[int], float]:
    """The learning rate as a function of the optimiser step, counted from 0.

    It rises linearly from warmup_start * lr to lr over the warm-up, then stays, or falls as half a cosine towards 0
    over lr_period (which may be longer than the run), or stays and falls linearly to 0 over the last lr_period ("wsd":
    warm-up, stable, decay; Hu et al. 2024). With lr_every = "epoch" it is that of the epoch's first step.
    Before a cosine the peak is the rate of two steps or epochs: the last of a warm-up from 0, which counts the step
    being taken so that no step is wasted, and the next; after a warm-up from more than 0 the next two.
    """
    cfg, length = run.config.train, run.length
    warmup, period = run.steps_in(cfg.warmup), run.steps_in(cfg.lr_period)
    every = run.steps_per_epoch if cfg.lr_every == "epoch" else 1
    peak_ends = warmup + every if warmup and cfg.warmup_start else warmup

    def rate(step: int) -> float:
        step -= step % every
        if step < warmup:
            if cfg.warmup_start == 0:
                step += every
            return cfg.lr * (cfg.warmup_start + (1 - cfg.warmup_start) * min(step / warmup, 1))
        if cfg.lr_schedule == "constant":
            return cfg.lr
        if cfg.lr_schedule == "wsd":
            return cfg.lr * min(1, (length - step) / max(period, 1))
        fallen = min(max(step - peak_ends, 0) / period, 1)
        return cfg.lr * 0.5 * (1 + math.cos(math.pi * fallen))

    return rate


def ema_decay(config: TrainConfig, step: int) -> float:
    """The decay after step ``step``, from 0: in a warm-up at most n / (9 + n) at update n; 0 without an average."""
    return min(config.ema_decay, (1 + step) / (10 + step)) if config.ema_warmup else config.ema_decay


def settled(draft: Run) -> TrainConfig:
    """[train] of a new run, with the length of its rate's fall: of a cosine the rest of the run, of wsd a fifth of it
    (two epochs at least, where the rate stands still within an epoch).

    Raises UserError where no step follows the warm-up, where a constant rate is given a fall, and where the fall ends
    before the run or is longer than it.
    """
    train, warmup = draft.config.train, draft.steps_in(draft.config.train.warmup)
    rest = draft.length - warmup
    if rest <= 0:
        allowed = f"is {counted(draft.length, 'step')}, not more than the {counted(warmup, 'step')} of the warm-up"
        raise UserError("train.length", train.length, allowed, {"train.warmup": counted(draft.length // 10, "step")})
    if train.lr_schedule != "constant" and train.lr_period == "0 steps":
        fifth = max(draft.length // 5, 2 * draft.steps_per_epoch if train.lr_every == "epoch" else 1)
        period = rest if train.lr_schedule == "cosine" else min(fifth, rest)
        train = replace(train, lr_period=f"{period} steps")
    _check_fall(Run(draft.path, replace(draft.config, train=train), draft.data))
    return train


def check_changed(new: Run, changed: Collection[str]) -> None:
    """Raise UserError, as `settled`, where a run that goes on was given another fall, or more steps than a cosine."""
    train, warmup = new.config.train, new.steps_in(new.config.train.warmup)
    if "train.lr_period" in changed:
        if new.length <= warmup:
            raise UserError("train.lr_period", train.lr_period, "begins after the run ends", {"train.lr_period": None})
        _check_fall(new)
    elif train.lr_schedule == "cosine" and new.length > (ends := _end(new)):
        beyond = f"goes beyond step {ends}, where the cosine of train.lr is 0"
        remedy = {"train.length": train.length, "train.lr_period": counted(new.length - warmup, "step")}
        raise KeptSettingsError(("train.length",), train.length, beyond, remedy)


def _check_fall(run: Run) -> None:
    train, ends = run.config.train, _end(run)
    period, most = train.lr_period, {"train.lr_period": counted(run.length - run.steps_in(train.warmup), "step")}
    if train.lr_schedule == "constant" and run.steps_in(period):
        others = {"train.lr_period": None}, {"train.lr_schedule": "cosine"}
        raise UserError("train.lr_period", period, "has no effect with a constant rate", others)
    if train.lr_schedule == "cosine" and run.length > ends:
        early = f"ends at step {ends} of {run.length}, and the rest would train at a rate of 0"
        raise UserError("train.lr_period", period, early, most)
    if train.lr_schedule == "wsd" and run.length < ends:
        late = f"after train.warmup={train.warmup} is longer than the run of {counted(run.length, 'step')}"
        raise UserError("train.lr_period", period, late, most)


def _end(run: Run) -> int:
    return run.steps_in(run.config.train.warmup) + run.steps_in(run.config.train.lr_period)
