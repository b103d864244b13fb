"""From a job to its images in memory, a batch at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoiser, Labelled, labelled
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.samplers.step import Step
from unstir.generate.job import Job, check, labels
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.guide import weaker
from unstir.runs.run import Run

Denoisers = tuple[Denoiser, Callable[[Tensor | None], Labelled] | None]
"""The denoiser of a job, and its guide, to be given the labels of a batch."""


def generate(
    run: Run,
    job: Job,
    *,
    first: int = 0,
    loaded: Checkpoint | None = None,
    denoisers: Denoisers | None = None,
    on_step: Callable[[], None] | None = None,
) -> Iterator[tuple[range, Tensor]]:
    """Yield (indices, images) a batch, images float32 [b, C, H, W] in about [-1, 1]: numbers ``first``..num-1 in order.

    A last batch that would be smaller is filled up and the surplus dropped, so that the arithmetic of an image does not
    depend on how many follow it; only a job of less than a batch computes just its own. ``loaded`` spares reading the
    checkpoint again, ``denoisers`` building the network too; ``on_step()`` is called after each step of a batch. Raises
    UserError for a label the network does not know, for weights that were not saved, or for a chain that does not
    exist.
    """
    pair = denoisers or load_denoisers(run, job, loaded)
    for begin in range(first, job.num, job.batch_size):
        yield batch(run, job, pair, begin, on_step)


def batch(
    run: Run, job: Job, denoisers: Denoisers, begin: int, on_step: Callable[[], None] | None
) -> tuple[range, Tensor]:
    """(indices, images) of the batch that begins at an image's number; see `generate`."""
    indices = range(begin, min(begin + job.batch_size, job.num))
    x = None
    for step in _steps(*denoisers, run, job, _computed(job, begin)):
        x = step.x
        if on_step is not None:
            on_step()
    assert x is not None
    return indices, x[: len(indices)]


def steps(run: Run, job: Job, shown: int, loaded: Checkpoint | None = None) -> Iterator[tuple[range, Iterator[Step]]]:
    """(indices, steps) of each batch until ``shown`` images were in one; arguments and errors as `generate`."""
    pair = load_denoisers(run, job, loaded)
    for begin in range(0, shown, job.batch_size):
        computed = _computed(job, begin)
        yield computed, _steps(*pair, run, job, computed)


def _computed(job: Job, begin: int) -> range:
    """The images that are computed in the batch that begins there: a whole one, but for a job of less."""
    return range(begin, begin + min(job.batch_size, job.num))


def load_denoisers(run: Run, job: Job, loaded: Checkpoint | None = None) -> Denoisers:
    """The denoiser of a job, and its guide where it has one. Raises UserError as `generate`."""
    check(run, job)
    settings: dict[str, Any] = {"ema": job.ema, "device": job.device, "dtype": job.dtype}
    denoiser = run.denoiser(step=job.step, loaded=loaded, **settings)
    return denoiser, None if job.guide is None else weaker(job.guide, run, **settings)


@torch.inference_mode()
def _steps(
    denoiser: Denoiser, guide: Callable[[Tensor | None], Labelled] | None, run: Run, job: Job, indices: range
) -> Iterator[Step]:
    slots = torch.tensor(indices, device=next(denoiser.net.parameters()).device)
    label = labels(run, job, slots)
    hidden = run.hidden_labels(slots)
    weak = guide(label) if guide is not None else None if hidden is None else labelled(denoiser, hidden)
    x = starting_noise(job.chain.seed, slots, run.data.shape)
    yield from draw(labelled(denoiser, label), denoiser.process, x, slots, job.chain, weak)
