"""The spans of a learning rate: what a new run leaves open is settled, and what would train at no rate is refused."""

from collections.abc import Collection
from dataclasses import replace

from unstir.errors import UserError
from unstir.runs.run import Run
from unstir.runs.sections import TrainConfig
from unstir.runs.timetable import learning_rate


def settled(draft: Run) -> TrainConfig:
    """[train] of a new run, with the length of its rate's fall: of a cosine the rest of the run, of wsd a fifth of it
    (two epochs at least, where the rate stands still within an epoch).

    Raises UserError where no step follows the warm-up, and as `check_fall`.
    """
    train, warmup = draft.config.train, draft.steps_in(draft.config.train.warmup)
    rest = draft.length - warmup
    if rest <= 0:
        raise UserError(
            f"{_in_steps(draft, 'length')} is not more than the warm-up, {_in_steps(draft, 'warmup')}, so that no "
            f'step follows at the full rate; shorten the warm-up too: --train.warmup "{_span(draft.length // 10)}"'
        )
    if train.lr_schedule != "constant" and train.lr_period == "0 steps":
        fifth = max(draft.length // 5, 2 * draft.steps_per_epoch if train.lr_every == "epoch" else 1)
        period = rest if train.lr_schedule == "cosine" else min(fifth, rest)
        train = replace(train, lr_period=f"{period} steps")
    check_fall(Run(draft.path, replace(draft.config, train=train), draft.data))
    return train


def check_changed(old: Run, new: Run, changed: Collection[str]) -> None:
    """Raise UserError, as `check_fall`, where a run that goes on was given another fall or more steps."""
    train = new.config.train
    if "train.lr_period" in changed:
        check_fall(new)
    elif new.length > old.length and train.lr_schedule == "cosine" and new.length > (ends := _end(new)):
        raise UserError(
            f"train.length={train.length} goes beyond step {ends}, where the cosine of train.lr is 0; give the "
            f'period its new length too: --train.lr_period "{_span(new.length - new.steps_in(train.warmup))}"'
        )


def check_fall(run: Run) -> None:
    """Raise UserError where the rate's fall ends before the run, is longer than it, or never comes."""
    train, ends = run.config.train, _end(run)
    most = f'--train.lr_period "{_span(run.length - run.steps_in(train.warmup))}"'
    if train.lr_schedule == "cosine" and run.length > ends:
        raise UserError(
            f"train.lr_period={train.lr_period} ends at step {ends} of {run.length}, and the rest would train at a "
            f"rate of 0; let it end with the run: {most}"
        )
    if train.lr_schedule == "wsd" and run.length < ends:
        raise UserError(
            f"train.lr_period={train.lr_period} of fall and train.warmup={train.warmup} are longer than the run of "
            f"{run.length} steps; at most {most}"
        )
    if train.lr_schedule != "constant" and train.lr_every == "epoch" and learning_rate(run, run.length - 1) == train.lr:
        raise UserError(
            f'the rate would not fall: with train.lr_every="epoch" it is that of the first step of an epoch of '
            f"{_span(run.steps_per_epoch)}, and its fall of {train.lr_period} has not begun by that of the last one; "
            "use --train.lr_every step"
        )


def _end(run: Run) -> int:
    """The step at which a fall that follows the warm-up ends."""
    return run.steps_in(run.config.train.warmup) + run.steps_in(run.config.train.lr_period)


def _in_steps(run: Run, name: str) -> str:
    """A span of [train] as it was given, and what it is in steps where it is not of steps."""
    span: str = getattr(run.config.train, name)
    return f"train.{name}={span}" + ("" if "step" in span else f" ({_span(run.steps_in(span))})")


def _span(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"
