"""The first images of a job on their trajectories from noise, to be looked at: the very images that the job writes."""

from collections.abc import Iterable, Iterator

import torch

from unstir.diffusion.draw import starting_noise
from unstir.diffusion.samplers.step import Step
from unstir.generate.drawing import Job, check, steps
from unstir.pictures.animation import MAX_FRAMES, Frame, collect
from unstir.progress import Progress, counter
from unstir.runs.model import Model


def trajectory(
    model: Model, job: Job, shown: int, *, limit: int = MAX_FRAMES, progress: Progress | None = None
) -> list[Frame]:
    """The frames of a job's images 0..shown-1, in the job's own batches: at most ``limit`` states of the chain.

    ``progress(done, total)`` counts steps; the errors are those of `sample_batches`.
    """
    check(model, job)
    times, shown = job.chain.times(model.process.schedule), min(shown, job.num)
    on_step = counter(progress, -(-shown // job.batch_size) * (len(times) - 1))

    def counted(taken: Iterable[Step]) -> Iterator[Step]:
        for step in taken:
            on_step()
            yield step

    parts = []
    for begin in range(0, shown, job.batch_size):
        indices, taken = steps(model, job, begin)
        x_T = starting_noise(job.chain.seed, torch.tensor(indices), model.shape)
        parts.append(collect(counted(taken), x_T, times, limit))
    return [
        Frame(same[0].t, *(torch.cat([getattr(frame, name) for frame in same])[:shown] for name in ("x", "x0")))
        for same in zip(*parts, strict=True)
    ]
