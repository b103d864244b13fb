"""`unstir train` and `unstir distill`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic.dataclasses import dataclass

from unstir.cli.app import TYPED, app, of_one, show
from unstir.cli.options import FLAT, FORMATTER, OutFolder, RunFolder
from unstir.errors import KeptSettingsError, UserError, quoted, short
from unstir.jobs.process import place, torchrun_group
from unstir.parts import VARIABLE
from unstir.runs import recipes, toml
from unstir.runs.config import MAY_CHANGE, Config
from unstir.runs.named import PREFIX, names
from unstir.runs.sections import STRICT, Calls, Positive, PositiveSpan
from unstir.runs.toml import is_run

if TYPE_CHECKING:
    from unstir.runs.run import Run  # which loads torch
    from unstir.train.observer import Observer, Stop


@Parameter(name="*", name_transform=str)
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Settings(Config):
    """The settings of a run as options; its recipe is an argument of its own, and what it trains is not imported."""

    recipe: Annotated[str, Parameter(parse=False)] = ""
    imported: Annotated[str, Parameter(parse=False)] = ""


LISTED = "\n".join(f"- **{name}**: {sentence}" for name, sentence in recipes.sentences().items())
HELP = f"""Train a model, or continue a run: the same command continues where it stopped.

Without arguments it trains on the MNIST digits of the package, in minutes. RECIPE is one of the list or a TOML file of
the settings below; options override it. Ctrl-C saves and exits.

Example: `unstir train photos --data.source my_images/ --minutes 30`

{LISTED}

These may change when a run is continued: {", ".join(MAY_CHANGE)}.
"""
MINUTES = 30.0
COMPARED = "ancestral:100,ddim:20,unipc:10"  # samplers and steps to compare in seconds, where images are small


@app.command(help=HELP, help_formatter=FORMATTER)
def train(
    recipe: Annotated[str, Parameter(help="A recipe, or a TOML file of settings.")] = "",
    /,
    *,
    out: Annotated[OutFolder | None, Parameter(help="Folder of the run; by default runs/RECIPE.")] = None,
    by_class: Annotated[bool, Parameter(negative="", help="Learn the classes of the data, to draw one.")] = False,
    minutes: Annotated[float | None, Parameter(help="Minutes that a new run of photos takes; by default 30.")] = None,
    config: Settings = Settings(),  # app.py fills in what is not given, from the recipe or the run
) -> int:
    """Train a model or continue one; the status is 0 when finished, 129, 130 or 143 when stopped."""
    from unstir.jobs.process import Signals
    from unstir.train.launch import train_run

    folder = recipes.run_folder(recipe, out)
    base = recipes.settings(recipe, folder)
    settings = Config(**{**vars(config), "recipe": base.recipe})
    settings, stop = _fitting(settings, folder, minutes, by_class), Signals()
    try:
        with torchrun_group(settings.train.device) as group:
            watch = _observer(settings, folder, stop)
            done = train_run(settings, folder, observer=watch, stop=stop, by_class=by_class, group=group)
    except KeptSettingsError as error:
        if by_class and "model.num_classes" in error.keys:
            raise UserError(
                "by_class", True, "is for a new run, which knows its classes", "name another --out"
            ) from None
        raise _kept(error, recipe, folder, settings, base) from None
    show(*done.conclusion, *(_next(done.run) if done.finished else ()))
    if done.finished and done.run.config.recipe == recipes.DEFAULT:
        show(*(f"trained  unstir sample {PREFIX}{name}" for name in names() if name != "digits"))
    return 0 if done.finished or place().rank else stop.status


def _fitting(settings: Config, folder: Path, minutes: float | None, by_class: bool) -> Config:
    """The settings, of which a new run of photos has some chosen for the minutes; UserError for options that clash."""
    if by_class and "model.num_classes" in TYPED:
        raise UserError("by_class", True, "sets model.num_classes", {"model.num_classes": None})
    if settings.recipe != recipes.PHOTOS:
        if minutes is not None:
            raise UserError("minutes", minutes, "is for the recipe photos", {"minutes": None})
        return settings
    if is_run(folder):
        return settings
    of_one("unstir train photos")
    from unstir.train.photos import for_minutes

    return for_minutes(settings, MINUTES if minutes is None else minutes, TYPED, by_class)


def _observer(settings: Config, folder: Path, stop: "Stop") -> "Observer":
    """The display of a training, and of photos a search for copies besides."""
    from unstir.console import TrainingDisplay

    if settings.recipe != recipes.PHOTOS or place().size > 1:
        return TrainingDisplay()
    from unstir.metrics.copies import CopyWatch
    from unstir.train.observer import Observers

    return Observers(TrainingDisplay(), CopyWatch(folder, stop))


def _kept(error: KeptSettingsError, recipe: str, folder: Path, settings: Config, base: Config) -> UserError:
    """What to say of a run that does not take the ``settings``: those of the recipe, the ``base``, or those typed."""
    from unstir.runs.run import Run

    kept, asked, default = Run.open(folder).config, toml.flat(settings), toml.flat(base)
    typed = [key for key in error.keys if asked.get(key) != default.get(key)]
    own = f"unstir train --out {quoted(folder)} goes on with the run's own settings"
    if recipe and kept.recipe != base.recipe:
        return UserError("out", folder, f"is a run of {kept.recipe or kept.data.source}", ("name another", own))
    if not recipe or len(typed) == len(error.keys):
        return error
    left_out = " and ".join(["the recipe", *(f"--{key}" for key in typed)])
    key = (typed or error.keys)[0]
    keeps = f"is {short(toml.flat(kept).get(key))} in the run, which keeps its settings"
    allowed = error.allowed if key == error.key else keeps
    return UserError(key, asked.get(key), allowed, f"leave out {left_out}: {own}")


def _next(run: "Run") -> tuple[str, ...]:
    folder, classes = quoted(run.path), run.config.model.num_classes
    label = f" --label {quoted(run.data.classes[-1])}" if classes else ""
    unstir = f"{VARIABLE}={run.config.modules} unstir" if run.config.modules else "unstir"
    commands = [f"{unstir} sample {folder}{label}", f"{unstir} report {folder}"]
    if not run.config.kind.has_teacher and run.config.diffusion.T >= 100:
        commands.insert(1, f"{unstir} sample {folder} --num 10 --compare {COMPARED}")
    return tuple(f"{'         ' if number else 'next     '}{command}" for number, command in enumerate(commands))


@FLAT
@dataclass(frozen=True, kw_only=True, config=STRICT)
class DistillOptions:
    """What may differ from RUN's training."""

    length: PositiveSpan | None = None
    """How long to train, such as "2000 steps" or "20 epochs"; by default that of RUN."""
    lr: Positive | None = None
    """Peak of the learning rate; by default half that of RUN."""
    calls: Calls | None = None
    """Number of calls an image is to take; by default 4."""


@app.command
def distill(
    run: RunFolder,
    /,
    *,
    out: OutFolder | None = None,
    store: Path | None = None,
    options: DistillOptions = DistillOptions(),
) -> int:
    """Train a run that draws images in a few calls, with RUN as its teacher, best a finished one.

    The new run begins with RUN's averaged weights. It learns where RUN's paths from noise go between its calls, and is
    sampled by so many steps of DDIM. The same command continues it.

    Example: `unstir distill runs/digits --calls 1 --out runs/fast && unstir sample runs/fast`

    Args:
        out: Folder of the new run; by default RUN-distilled.
        store: Folder of packed data with labels and conditions as RUN learned, if its own has moved or is not here.
    """
    from unstir.console import TrainingDisplay
    from unstir.jobs.process import Signals
    from unstir.runs.run import Run
    from unstir.train.distill import distill_run

    stop, asked = Signals(), (options.length, options.lr, options.calls)
    with torchrun_group(Run.open(run).config.train.device) as group:
        done = distill_run(run, out, *asked, store=store, observer=TrainingDisplay(), stop=stop, group=group)
    show(*done.conclusion, *(_next(done.run) if done.finished else ()))
    return 0 if done.finished or place().rank else stop.status
