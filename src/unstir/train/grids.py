"""The grids of a run's snapshots: samples/NAME.png, drawn from the same noise each."""

import logging

import torch

from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.draw import starting_noise
from unstir.errors import NotFiniteError, within_memory
from unstir.pictures.grid import grid, named_grid
from unstir.pixels import to_uint8
from unstir.runs.files import replacing
from unstir.runs.loading import model_in_training
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.runs.timetable import grid_file
from unstir.train.observer import Observer, Stop

logger = logging.getLogger(__name__)


class Grids:
    """Draws what is not there yet; ``spoilt``: the last weights answered with NaN, of which no grid is drawn."""

    def __init__(self, run: Run, observer: Observer) -> None:
        self._run, self._observer = run, observer
        self.spoilt = False

    def is_drawn(self, name: str | None) -> bool:
        """Whether the grid of a snapshot exists (that of no snapshot counts as drawn)."""
        return name is None or grid_file(self._run, name).exists()

    def draw(self, denoiser: Denoiser, step: int, name: str, stop: Stop) -> None:
        """Draw the grid of a snapshot, taken after ``step``; of weights that answer with NaN there is none, which is
        said once. Raises OutOfMemoryError.
        """
        model = model_in_training(self._run, denoiser, step)
        try:
            with within_memory("grids.num"):
                draw_grid(self._run, model, name, self._observer, stop)
            self.spoilt = False
        except NotFiniteError as error:
            if not self.spoilt:
                logger.warning(f"no grid of step {step} is drawn: {error}")
            self.spoilt = True


def draw_grid(run: Run, model: Model, name: str, observer: Observer, stop: Stop) -> None:
    """Draw samples/NAME.png, with the names of the classes; the noise is the same in every grid, and noise.png shows it
    for as many images.

    Draws nothing when stopping. Raises NotFiniteError where the network answers with NaN or an infinity.
    """
    cfg = run.config.grids
    indices = torch.arange(cfg.num, device=model.device)
    x = starting_noise(cfg.seed, indices, run.data.shape)
    run.samples.mkdir(exist_ok=True)
    with replacing(run.samples / "noise.png") as partial:
        grid(to_uint8(x), cfg.nrow).save(partial, format="png")
    total, labels = len(model.chain.times(model.process.schedule)) - 1, model.labels.of(indices)
    for done, step in enumerate(model.draw(model.chain, indices, labels), start=1):
        if stop.signal is not None:
            return
        observer.snapshot("drawing samples", done, total)
        x = step.x
    with replacing(file := grid_file(run, name)) as partial:
        named_grid(to_uint8(x), cfg.nrow, model.labels.captions(labels) or None).save(partial, format="png")
    observer.grid(model.step, file)
