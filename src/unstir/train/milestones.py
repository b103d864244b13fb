"""The moments at which a run is looked at: losses are measured, a grid of samples is drawn, a slim file is kept."""

from pathlib import Path

import torch

from unstir.diffusion.draw import starting_noise
from unstir.pictures.charts import held_out_curves, training_curves
from unstir.pictures.grid import grid
from unstir.pictures.named import named_grid
from unstir.pixels import to_uint8
from unstir.runs.files import replacing
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.train.watch import Stop, Watch

START = "start"


def milestones(run: Run) -> dict[int, str]:
    """The optimiser steps after which the run is looked at, each with the name of its picture.

    Step 0, "start", is the untrained network. With grids.epochs they are the ends of those epochs, counted from 0 as
    the report does ("epoch-0050"); otherwise log_spaced moments, each a constant factor after the last, from a
    thousandth of the run to its end, named by images seen ("images-00012800"). The last step is always one.
    """
    cfg, length = run.config.grids, run.length
    if cfg.epochs:
        named = {(epoch + 1) * run.steps_per_epoch: f"epoch-{epoch:04d}" for epoch in cfg.epochs}
        named.setdefault(length, f"end-{length:08d}")
    else:
        spaced = (length * 1000 ** (k / cfg.log_spaced - 1) for k in range(1, cfg.log_spaced + 1))
        steps = {length, *(max(1, round(step)) for step in spaced)}
        named = {step: f"images-{step * run.config.train.batch_size:08d}" for step in steps}
    named[0] = START
    return {step: name for step, name in sorted(named.items()) if step <= length}


def is_drawn(run: Run, name: str | None) -> bool:
    """Whether the picture of a milestone exists (that of no milestone counts as drawn)."""
    return name is None or _picture(run, name).exists()


def newest_picture(run: Run) -> Path | None:
    """The picture of the last milestone that was drawn; None before the first."""
    drawn = [_picture(run, name) for name in milestones(run).values() if is_drawn(run, name)]
    return drawn[-1] if drawn else None


def draw_milestone(run: Run, model: Model, name: str, watch: Watch, stop: Stop) -> None:
    """Draw samples/NAME.png, with the names of the classes; the noise is the same at every milestone.

    Draws nothing when stopping.

    Raises NotFiniteError where the network answers with NaN or an infinity.
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
        watch.drawing(done, total)
        x = step.x
    with replacing(_picture(run, name)) as partial:
        named_grid(to_uint8(x), cfg.nrow, model.labels.captions(labels) or None).save(partial, format="png")


def draw_charts(run: Run) -> None:
    """Draw curves.png and losses.png from the lines of metrics.jsonl and held_out.jsonl, where there are any."""
    if lines := run.metrics():
        with replacing(run.path / "curves.png") as partial:
            training_curves(lines, partial)
    if lines := run.held_out():
        with replacing(run.path / "losses.png") as partial:
            held_out_curves(lines, partial)


def _picture(run: Run, name: str) -> Path:
    return run.samples / f"{name}.png"
