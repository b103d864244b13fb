"""The spans of a learning rate: what a new run leaves open is settled, and what would train at no rate is refused."""

from collections.abc import Collection
from dataclasses import replace

from unstir.errors import KeptSettingsError, Remedy, UserError
from unstir.runs.run import Run
from unstir.runs.sections import TrainConfig


def settled(draft: Run) -> TrainConfig:
    """[train] of a new run, with the length of its rate's fall: of a cosine the rest of the run, of wsd a fifth of it
    (two epochs at least, where the rate stands still within an epoch).

    Raises UserError where no step follows the warm-up, where a constant rate is given a fall, and where the fall ends
    before the run, is longer than it or never comes.
    """
    train, warmup = draft.config.train, draft.steps_in(draft.config.train.warmup)
    rest = draft.length - warmup
    if rest <= 0:
        allowed = f"is {_span(draft.length)}, not more than the {_span(warmup)} of the warm-up"
        raise UserError("train.length", train.length, allowed, {"train.warmup": _span(draft.length // 10)})
    if train.lr_schedule != "constant" and train.lr_period == "0 steps":
        fifth = max(draft.length // 5, 2 * draft.steps_per_epoch if train.lr_every == "epoch" else 1)
        period = rest if train.lr_schedule == "cosine" else min(fifth, rest)
        train = replace(train, lr_period=f"{period} steps")
    _check_fall(Run(draft.path, replace(draft.config, train=train), draft.data), {"train.lr_every": "step"})
    return train


def check_changed(old: Run, new: Run, changed: Collection[str]) -> None:
    """Raise UserError, as `settled`, where a run that goes on was given another fall, or more steps than a cosine."""
    train, warmup = new.config.train, new.steps_in(new.config.train.warmup)
    if "train.lr_period" in changed:
        if new.length <= warmup:
            none = f"has no effect in {_span(new.length)}, as the warm-up takes {_span(warmup)}"
            raise UserError("train.lr_period", train.lr_period, none, {"train.lr_period": None})
        _check_fall(new, {"train.lr_period": None})
    elif new.length > old.length and train.lr_schedule == "cosine" and new.length > (ends := _end(new)):
        beyond, period = f"goes beyond step {ends}, where the cosine of train.lr is 0", _span(new.length - warmup)
        remedy = {"train.length": train.length, "train.lr_period": period}
        raise KeptSettingsError(("train.length",), train.length, beyond, remedy)


def _check_fall(run: Run, remedy: Remedy) -> None:
    """Refuse a fall of a constant rate, and one that ends before the run, is longer than it, or never comes: for this
    the ``remedy``.
    """
    train, ends = run.config.train, _end(run)
    period, most = train.lr_period, {"train.lr_period": _span(run.length - run.steps_in(train.warmup))}
    if train.lr_schedule == "constant" and run.steps_in(period):
        others = {"train.lr_period": None}, {"train.lr_schedule": "cosine"}
        raise UserError("train.lr_period", period, "has no effect with a constant rate", others)
    if train.lr_schedule == "cosine" and run.length > ends:
        early = f"ends at step {ends} of {run.length}, and the rest would train at a rate of 0"
        raise UserError("train.lr_period", period, early, most)
    if train.lr_schedule == "wsd" and run.length < ends:
        late = f"after train.warmup={train.warmup} is longer than the run of {_span(run.length)}"
        raise UserError("train.lr_period", period, late, most)
    if train.lr_every == "epoch" and run.length >= ends and _stands_still(run):
        held = f"is no longer than an epoch, {_span(run.steps_per_epoch)}, for which lr_every holds the rate"
        raise UserError("train.lr_period", period, held, remedy)


def _stands_still(run: Run) -> bool:
    """Whether the first step of the last epoch still has the full rate, or a part of the warm-up."""
    train = run.config.train
    first = (run.length - 1) // run.steps_per_epoch * run.steps_per_epoch
    if train.lr_schedule == "cosine":
        return first <= run.steps_in(train.warmup)
    return train.lr_schedule == "wsd" and run.length - first >= run.steps_in(train.lr_period)


def _end(run: Run) -> int:
    """The step at which a fall that follows the warm-up ends."""
    return run.steps_in(run.config.train.warmup) + run.steps_in(run.config.train.lr_period)


def _span(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"
