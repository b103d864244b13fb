"""A training that stops by itself when it begins to draw copies of its training images."""

import logging
from pathlib import Path

import torch

from unstir.errors import quoted
from unstir.generate.drawing import Job, sample_batches
from unstir.metrics.plan import search
from unstir.runs.run import Run
from unstir.runs.stores import with_store
from unstir.train.observer import Observer, Stop

logger = logging.getLogger(__name__)

NUM = 64  # images drawn at a snapshot to be searched


class CopyWatch(Observer):
    """Searches images of a run at each snapshot, and asks to ``stop`` where they are copies of training images."""

    def __init__(self, folder: Path, stop: Stop) -> None:
        self._folder, self._stop = folder, stop

    def grid(self, step: int, file: Path) -> None:
        """Draw images by the weights of the step, and search them by pixels as `evaluate` does."""
        if not step:
            return
        run, store = with_store(Run.open(self._folder))
        if store.count("train") < 2:  # a distance is relative to that of the second nearest
            return
        model = run.model(step, device=run.config.train.device, dtype=run.config.train.dtype)
        job = Job(num=NUM, chain=model.chain, batch_size=NUM)
        drawn = torch.cat([images for _, images in sample_batches(model, job)]).cpu()
        result, _ = search(store.scale.to_units(drawn), store, flip=run.config.data.flip)
        if result.verdict == "copies":
            logger.warning(
                f"step {step}: the images drawn are copies of training images, so training stops. The weights of least "
                f"held-out loss copy least: unstir sample {quoted(run.path)} --checkpoint best"
            )
            self._stop.request(0)
