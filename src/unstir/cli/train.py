"""`unstir train`."""

import dataclasses
from typing import Annotated

from cyclopts import Parameter

from unstir.cli.app import app, base_config, run_folder, say, show
from unstir.cli.train_help import FORMATTER
from unstir.runs import recipes
from unstir.runs.config import MAY_CHANGE, Config


def _train_help() -> str:
    listed = "\n".join(f"- **{name}**: {sentence}" for name, sentence in recipes.sentences().items())
    return f"""Train a model, or continue a run: the same command goes on where it stopped.

Alone it trains the embedded digits in minutes. RECIPE is one of the list or a TOML file of the settings below; options
override it. Ctrl-C saves and exits.

Example: `unstir train cifar10-small --data.source my_images/ --data.size 32 --out runs/mine`

{listed}

When continuing, these may change: {", ".join(MAY_CHANGE)}.
"""


@app.command(help=_train_help(), help_formatter=FORMATTER)
def train(
    recipe: Annotated[str, Parameter(help="A recipe, or a TOML file of settings.")] = "",
    /,
    *,
    out: Annotated[str, Parameter(help="Folder of the run; empty: runs/RECIPE.")] = "",
    config: Config = Config(),  # noqa: B008 - frozen
) -> int:
    """Train a model or continue one; the status is 0 when finished, 129, 130 or 143 when stopped."""
    from unstir import console
    from unstir.data.images import COLOUR_LOST
    from unstir.runs.moments import newest_grid
    from unstir.train.launch import open_data, open_run
    from unstir.train.trainer import Trainer
    from unstir.train.watch import Stop

    folder = run_folder(recipe, out)
    config = dataclasses.replace(config, recipe=base_config(recipe, folder).recipe)
    screen = console.stderr()
    with console.counting(screen, "packing", "images") as progress:
        store = open_data(config, folder, progress)
    if store.refused:
        say(f"{len(store.refused)} files were refused; unstir data inspect {store.path} lists them")
    if lost := sum(note.count for note in store.notes if note.text == COLOUR_LOST):
        keep = "--data.channels 3 --model.in_channels 3"
        say(f"{lost} images had colours, which {store.path} has not; a new run with {keep} keeps them")
    run = open_run(config, folder, store)
    with run.lock(), Stop() as stop, console.TrainingDisplay(screen) as display:
        run.tidy()
        trainer = Trainer(run, store, display)
        display.say(trainer.introduction())
        if trainer.finished:
            show(*trainer.conclusion().splitlines())
            return 0
        finished = trainer.run(stop)
    if finished:
        curves = [path for path in (run.path / "curves.png", run.path / "losses.png") if path.exists()]
        show(
            f"samples  {newest_grid(run)}",
            f"curves   {', '.join(map(str, curves))}",
            f"data     {run.config.data.store}",
        )
    else:
        show(f"stopped at step {trainer.state.step} of {run.length}; all is saved, the same command continues")
    return 0 if finished else stop.status
