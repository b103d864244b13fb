"""From a finished run, the teacher, to one that draws in a few calls along its paths (`diffusion.paths`)."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstir.errors import UserError, quoted
from unstir.group import Alone
from unstir.runs.config import Config, Kind
from unstir.runs.named import reference, run_and_step
from unstir.runs.run import Run
from unstir.runs.sections import LossConfig
from unstir.runs.stores import with_store
from unstir.runs.toml import is_run
from unstir.train.launch import Training, train_run
from unstir.train.observer import Observer, Stop

logger = logging.getLogger(__name__)


def distill_run(
    teacher: str | Path,
    folder: str | Path | None = None,
    length: str | None = None,
    lr: float | None = None,
    calls: int | None = None,
    *,
    store: str | Path | None = None,
    observer: Observer | None = None,
    stop: Stop | None = None,
    group: Alone = Alone(),
) -> Training:
    """Train the run in ``folder``, distilled from the ``teacher``'s or continued; as `train_run` otherwise.

    By default the folder has the name of the teacher's with "-distilled" behind it, ``length`` ("2000 steps") is the
    teacher's, ``lr`` half the teacher's, and an image takes 4 ``calls``; of a run that is continued its own. Of the
    data, by default the teacher's, only labels and conditions are learned from: those of a ``store`` of like images do.
    Raises UserError as `distilled` and `train_run`, and where the run in ``folder`` was begun otherwise.
    """
    run = Run.open(teacher)
    out = run.path.with_name(f"{run.path.name}-distilled") if folder is None else Path(folder)
    config = _begun(out, run, length, lr, calls) if is_run(out) else distilled(run, length, lr, calls)
    if not is_run(out) and not run.shipped and (step := run.newest_step()) < run.length:
        first = f"to finish it first: unstir train --out {quoted(run.path)}"
        logger.warning(f"{run.path} is at step {step} of {run.length}; {first}")
    if store is not None or (run.shipped and not is_run(out)):
        run, named = with_store(replace(run, data=replace(run.data, content_hash="")), store)
        config = replace(config, data=replace(config.data, store=str(named.path)))
    return train_run(config, out, observer=observer, stop=stop, data_of=run, group=group)


def distilled(run: Run, length: str | None = None, lr: float | None = None, calls: int | None = None) -> Config:
    """The config of a new run that is distilled from the newest weights of ``run``; arguments as `distill_run`.

    Noise prediction becomes velocity prediction: at t = T an error of the noise would be sigma_T / alpha_T times as
    large in the image. Raises UserError for a run that is distilled itself, learned a variance or saved no weights.
    """
    config, predict = run.config, run.config.diffusion.predict
    remedy = f"distil a run that went on from its weights: {run.going_on}"
    config.kind.check_trained_here(run.path, " and has no data to learn from", remedy)
    teacher = f"distil its teacher: unstir distill {quoted(run_and_step(config.train.init)[0])} --out NEW"
    config.kind.check_means(run.path, " already", teacher)
    if config.diffusion.learned_variance:
        raise UserError("", run.path, "learned a variance, of no use in few calls", "distil a run without it")
    begins = f"{reference(run.name)}@{run.newest_step()}"
    length, lr = f"{run.length} steps" if length is None else length, config.train.lr / 2 if lr is None else lr
    train = replace(config.train, length=length, lr=lr, init=begins, compile="no", micro_batch=0)
    falls: dict[str, Any] = {"lr_schedule": "cosine", "lr_period": "0 steps", "lr_every": "step"}
    kind = Kind(calls=LossConfig.calls if calls is None else calls)
    drawn = config.grids.changed(**kind.chain, guidance=1.0)
    return replace(
        config,
        diffusion=replace(config.diffusion, predict="v" if predict == "eps" else predict),
        model=config.model if "dropout" in config.model.unused else replace(config.model, dropout=0.0),
        loss=LossConfig(objective="paths", teacher=predict, calls=kind.calls),
        train=replace(train, warmup=f"{run.steps_in(length) // 20} steps", **falls),
        log=replace(config.log, held_out_images=0, to=(), options={}),
        grids=replace(drawn, epochs=()),
    )


def _begun(out: Path, run: Run, length: str | None, lr: float | None, calls: int | None) -> Config:
    """The config of the run in ``out``, distilled from ``run``, with what is given; its cosine follows the length."""
    begun = Run.open(out)
    config, train = begun.config, begun.config.train
    if not config.kind.has_teacher or reference(run_and_step(train.init)[0]) != reference(run.name):
        raise UserError("out", out, f"was not distilled from {run.path}", "name another folder")
    if calls not in (None, own := config.kind.calls):
        raise UserError("calls", calls, f"would change the {own} of {out}", ({"calls": None}, "name another folder"))
    length, lr = train.length if length is None else length, train.lr if lr is None else lr
    longer = replace(train, length=length, lr=lr)
    if longer.length != train.length and train.lr_schedule == "cosine":
        period = begun.steps_in(longer.length) - begun.steps_in(train.warmup)
        longer = replace(longer, lr_period=f"{max(period, 1)} steps")
    return replace(config, train=longer)
