"""The first images of a job on their way from noise, to be looked at: the very images that the job writes."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch

from unstir.diffusion.draw import starting_noise
from unstir.diffusion.samplers.step import Step
from unstir.generate.drawing import steps
from unstir.generate.job import Job
from unstir.pictures.animation import MAX_FRAMES, Frame, collect
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run


def way(
    run: Run,
    job: Job,
    shown: int,
    *,
    limit: int = MAX_FRAMES,
    loaded: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Frame]:
    """The frames of a job's images 0..shown-1, in the job's own batches: at most ``limit`` states of the chain.

    ``progress(done, total)`` counts steps; the other arguments and the errors are those of `generate`.
    """
    times, shown = job.chain.times(build.schedule(run.config.diffusion)), min(shown, job.num)
    total, done = -(-shown // job.batch_size) * (len(times) - 1), itertools.count(1)

    def counted(taken: Iterable[Step]) -> Iterator[Step]:
        for step in taken:
            if progress is not None:
                progress(next(done), total)
            yield step

    parts = []
    for indices, taken in steps(run, job, shown, loaded):
        x_T = starting_noise(job.chain.seed, torch.tensor(indices), run.data.shape)
        parts.append(collect(counted(taken), x_T, times, limit))
    return [
        Frame(same[0].t, *(torch.cat([getattr(frame, name) for frame in same])[:shown] for name in ("x", "x0")))
        for same in zip(*parts, strict=True)
    ]
