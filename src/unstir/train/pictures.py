"""What training draws of a run: its grids of samples and its curves."""

import torch

from unstir.diffusion.draw import starting_noise
from unstir.pictures.charts import held_out_curves, training_curves
from unstir.pictures.grid import grid, named_grid
from unstir.pixels import to_uint8
from unstir.runs.files import replacing
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.timetable import grid_file
from unstir.train.observer import Observer, Stop


def draw_grid(run: Run, model: Model, name: str, observer: Observer, stop: Stop) -> None:
    """Draw samples/NAME.png, with the names of the classes; the noise is the same in every grid.

    Draws nothing when stopping. Raises NotFiniteError where the network answers with NaN or an infinity.
    """
    cfg = run.config.grids
    indices = torch.arange(cfg.num, device=model.device)
    x = starting_noise(cfg.seed, indices, run.data.shape)
    run.samples.mkdir(exist_ok=True)
    noise = run.samples / "noise.png"
    if not noise.exists():
        with replacing(noise) as partial:
            grid(to_uint8(x), cfg.nrow).save(partial, format="png")
    total, labels = len(model.chain.times(model.process.schedule)) - 1, model.labels.of(indices)
    for done, step in enumerate(model.draw(model.chain, indices, labels), start=1):
        if stop.signal is not None:
            return
        observer.snapshot("drawing samples", done, total)
        x = step.x
    with replacing(grid_file(run, name)) as partial:
        named_grid(to_uint8(x), cfg.nrow, model.labels.captions(labels) or None).save(partial, format="png")


def draw_charts(run: Run) -> None:
    """Draw curves.png and losses.png from the lines of metrics.jsonl and held_out.jsonl, where there are any."""
    if lines := run.metrics():
        with replacing(run.path / "curves.png") as partial:
            training_curves(lines, partial)
    if lines := run.held_out():
        with replacing(run.path / "losses.png") as partial:
            held_out_curves(lines, partial)
