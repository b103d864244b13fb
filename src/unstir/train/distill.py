"""From a finished run to one that samples in 1, 2 or 4 calls: consistency tuning (Geng et al. 2025).

The new run is a run as any other: its weights begin as the averaged ones of the old run, its objective is consistency.
`train_run` trains it and continues it.
"""

from dataclasses import replace
from pathlib import Path

from unstir.errors import UserError
from unstir.progress import Say, Showing, silently, unsaid
from unstir.runs.config import Config
from unstir.runs.run import Run, is_run, run_and_step
from unstir.runs.sections import LossConfig
from unstir.train.launch import Training, train_run
from unstir.train.observer import Observer, Stop

HALVINGS = 5  # of the gap in the whole length: at last t is compared with a time that is earlier by 1/32 of t


def distill_run(
    teacher: str | Path,
    folder: str | Path,
    length: str = "",
    lr: float = 0.0,
    *,
    observer: Observer | None = None,
    stop: Stop | None = None,
    say: Say = unsaid,
    showing: Showing = silently,
) -> Training:
    """Train the run in ``folder``, distilled from the ``teacher``'s or continued; as `train_run` otherwise.

    ``length`` ("2000 steps") is by default ("") half the teacher's, ``lr`` (0) the teacher's; of a run that is
    continued its own.
    Raises UserError as `distilled` and `train_run`, and where the run in ``folder`` was begun otherwise.
    """
    run, out = Run.open(teacher), Path(folder)
    config = distilled(run, length, lr) if not is_run(out) else _begun(out, run, length, lr)
    return train_run(config, out, observer=observer, stop=stop, say=say, showing=showing, data_of=run)


def distilled(run: Run, length: str = "", lr: float = 0.0) -> Config:
    """The config of a new run that is distilled from the newest weights of ``run``; arguments as `distill_run`.

    Noise prediction becomes velocity prediction: at t = T an error of the noise would be sigma_T / alpha_T times as
    large in the image. Raises UserError for a run that is distilled itself, learned a variance or saved no weights.
    """
    config, predict = run.config, run.config.diffusion.predict
    if config.imported:
        raise UserError(
            f"{run.path} was imported and has no data to learn from; distil a run that went on from its weights: "
            f"{run.going_on}"
        )
    if config.distilled:
        raise UserError(
            f"{run.path} is distilled already; to train it for longer: unstir distill "
            f"{run_and_step(config.train.init)[0]} --out {run.path} --length LONGER"
        )
    if config.diffusion.learned_variance:
        raise UserError(
            f"{run.path} learned a variance, which sampling in one call does not use; distil a run without it"
        )
    half, begins = f"{max(run.length // 2, 1)} steps", f"{run.path.resolve()}@{run.newest_step()}"
    train = replace(config.train, length=length or half, lr=lr or config.train.lr, init=begins, compile="auto")
    steps = run.steps_in(train.length)
    gap_halving = f"{max(steps // HALVINGS, 1)} steps"
    return replace(
        config,
        diffusion=replace(config.diffusion, predict="v" if predict == "eps" else predict),
        loss=LossConfig(objective="consistency", gap_halving=gap_halving, times="normal", times_scale=3.0),
        train=replace(train, warmup=f"{steps // 20} steps", lr_schedule="cosine", lr_period="0 steps"),
        log=replace(config.log, held_out_images=0),
        grids=replace(
            config.grids.changed(sampler="consistency", steps=2, spacing="trailing", guidance=1.0), epochs=()
        ),
    )


def _begun(out: Path, run: Run, length: str, lr: float) -> Config:
    """The config of the run in folder ``out``, which was distilled from ``run``, with what is given in its place.

    Of another length the cosine of the rate ends where the run does.
    """
    begun = Run.open(out)
    config, train = begun.config, begun.config.train
    if not config.distilled or Path(run_and_step(train.init)[0]).resolve() != run.path.resolve():
        raise UserError(f"{out} was not distilled from {run.path}; name another folder with --out")
    longer = replace(train, length=length or train.length, lr=lr or train.lr)
    if longer.length != train.length and train.lr_schedule == "cosine":
        period = begun.steps_in(longer.length) - begun.steps_in(train.warmup)
        longer = replace(longer, lr_period=f"{max(period, 1)} steps")
    return replace(config, train=longer)
