"""A job of one batch without a folder: its frames as they are computed, then its files as bytes."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from unstir.diffusion.draw import starting_noise
from unstir.diffusion.samplers import Step
from unstir.generate.drawing import Job, check, steps
from unstir.generate.folder import grid_of
from unstir.pictures.animation import Frame, collect, save_animation
from unstir.pictures.grid import with_words
from unstir.progress import counter, counting
from unstir.runs.model import Model


class Drawing:
    """The images of a job, all in one batch, as `sample` draws them. Raises UserError as `check`."""

    def __init__(self, model: Model, job: Job) -> None:
        check(model, job)
        self.model, self.job = model, job
        self._images, self._frames = torch.empty(0), list[Frame]()

    def frames(self) -> Iterator[Frame]:
        """Yield at most 61 states of the chain, each as soon as its step was taken."""
        times = self.job.chain.visited(self.model.process.schedule)
        with counting("sampling", "steps") as count:
            indices, taken = steps(self.model, self.job, 0, counter(count, len(times) - 1))
            x_T = starting_noise(self.job.chain.seed, torch.tensor(indices), self.model.shape)
            for frame in collect(self._watched(taken), x_T, times, pixels=self.model.pixels):
                self._frames.append(frame)
                yield frame

    def _watched(self, taken: Iterator[Step]) -> Iterator[Step]:
        for step in taken:
            self._images = step.x
            yield step

    @property
    def images(self) -> Tensor:
        """The images after the last frame, in units of the data: [N, C, H, W], uint8 or float32."""
        return self.model.to_units(self._images)

    def png(self) -> bytes:
        """The grid.png of the job's folder."""
        file, shown = BytesIO(), self.model.data.scale.shown(self.images, self.model.channels)
        picture = grid_of(self.model, self.job, shown)
        picture.save(file, format="png", pnginfo=with_words(**self.model.marks))
        return file.getvalue()

    def npy(self) -> bytes:
        """The images.npy of the job's folder."""
        file = BytesIO()
        np.save(file, self.images.numpy())
        return file.getvalue()

    def webp(self) -> bytes:
        """The animation of the job, x_t next to the estimate of x_0."""
        file = BytesIO()
        save_animation(self._frames, file, "WEBP", nrow=self.model.nrow, scale=self.model.scale)
        return file.getvalue()
