"""`unstir train` and `unstir distill`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic.dataclasses import dataclass

from unstir.cli.app import app, show
from unstir.cli.options import FLAT, RunFolder
from unstir.cli.train_help import FORMATTER
from unstir.errors import KeptSettingsError, UserError
from unstir.jobs.process import place, torchrun_group
from unstir.runs import recipes, toml
from unstir.runs.config import MAY_CHANGE, Config
from unstir.runs.sections import STRICT, Positive, PositiveSpan

if TYPE_CHECKING:
    from unstir.runs.run import Run  # which loads torch


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

Example: `unstir train cifar10-small --data.source my_images/ --data.size 32 --out runs/mine`

{LISTED}

These may change when a run is continued: {", ".join(MAY_CHANGE)}.
"""
MOST = 100
COMPARED = f"ancestral:{MOST},ddim:20,unipc:10"
"""Samplers and steps to compare, ``MOST`` steps at most: seconds for small images."""


@app.command(help=HELP, help_formatter=FORMATTER)
def train(
    recipe: Annotated[str, Parameter(help="A recipe, or a TOML file of settings.")] = "",
    /,
    *,
    out: Annotated[str, Parameter(help="Folder of the run; empty: runs/RECIPE.")] = "",
    config: Settings = Settings(),  # app.py fills in what is not given, from the recipe or the run
) -> int:
    """Train a model or continue one; the status is 0 when finished, 129, 130 or 143 when stopped."""
    from unstir.console import TrainingDisplay
    from unstir.jobs.process import Signals
    from unstir.train.launch import train_run

    folder = recipes.run_folder(recipe, out)
    base = recipes.settings(recipe, folder)
    settings = Config(**{**vars(config), "recipe": base.recipe})
    stop, display = Signals(), TrainingDisplay()
    try:
        with torchrun_group(settings.train.device) as group:
            done = train_run(settings, folder, observer=display, stop=stop, group=group)
    except KeptSettingsError as error:
        asked, default = toml.flat(settings), toml.flat(base)
        if not recipe or all(asked.get(key) != default.get(key) for key in error.keys):
            raise
        own = f"unstir train --out {shlex.quote(str(folder))} goes on with the run's own settings"
        raise UserError(error.key, error.given, error.allowed, f"leave out the recipe: {own}") from None
    show(*done.conclusion, *(_next(done.run) if done.finished else ()))
    return 0 if done.finished or place().rank else stop.status


def _next(run: "Run") -> tuple[str, ...]:
    """The commands to go on with, to be pasted: images of a class, samplers compared, the report."""
    folder, classes = shlex.quote(str(run.path)), run.config.model.num_classes
    label = f" --label {shlex.quote(run.data.classes[-1])}" if classes else ""
    commands = [f"unstir sample {folder}{label}", f"unstir report {folder}"]
    if not run.config.kind.has_teacher and run.config.diffusion.T >= MOST:
        commands.insert(1, f"unstir sample {folder} --num 10 --compare {COMPARED}")
    return tuple(f"{'         ' if number else 'next     '}{command}" for number, command in enumerate(commands))


@FLAT
@dataclass(frozen=True, kw_only=True, config=STRICT)
class DistillOptions:
    """What may differ from RUN's training."""

    length: PositiveSpan | None = None
    """How long to train, such as "2000 steps" or "20 epochs"; by default that of RUN."""
    lr: Positive | None = None
    """Peak of the learning rate; by default half that of RUN."""


@app.command
def distill(run: RunFolder, /, *, out: Path, options: DistillOptions = DistillOptions()) -> int:
    """Train a run that samples in 1, 2 or 4 calls, with RUN as its teacher, best a finished one.

    The new run begins with RUN's averaged weights. It learns the images in which RUN's paths from noise end, and is
    sampled by consistency. The same command continues it.

    Example: `unstir distill runs/digits --out runs/fast && unstir sample runs/fast --steps 1`

    Args:
        out: Folder of the new run.
    """
    from unstir.console import TrainingDisplay
    from unstir.jobs.process import Signals
    from unstir.runs.run import Run
    from unstir.train.distill import distill_run

    stop, display = Signals(), TrainingDisplay()
    with torchrun_group(Run.open(run).config.train.device) as group:
        done = distill_run(run, out, options.length, options.lr, observer=display, stop=stop, group=group)
    show(*done.conclusion)
    return 0 if done.finished or place().rank else stop.status
