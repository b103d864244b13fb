"""From a model and a job to images in memory, a batch at a time: image i is the same in whatever batch and job."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.diffusion.samplers import Step
from unstir.errors import UserError, within_memory
from unstir.runs.model import Model

MOST_IMAGES = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked of a model: ``num`` images by a ``chain``, computed ``batch_size`` at once.

    ``label`` is a class index, or None where the network knows none, or where each class is drawn in turn, or as often
    as ``shares`` (numbers of images by class, in any unit) say. ``condition``, in the units of the data, is a vector
    [K] or an image [C', H, W] for all, or [N, ...], of which image i takes row i mod N; by default it is the run's own,
    of held-out images.
    """

    num: int
    chain: Chain
    label: int | None = None
    shares: tuple[int, ...] = ()
    condition: Tensor | None = field(default=None, compare=False)
    batch_size: int = 64


def check(model: Model, job: Job) -> None:
    """Raise UserError for a job that this model cannot do."""
    for name in ("num", "batch_size"):
        if not 1 <= (value := getattr(job, name)) <= MOST_IMAGES:
            raise UserError(name, value, f"is outside 1..{MOST_IMAGES}")
    model.labels.check(job.label, job.shares)
    model.check_condition(job.condition)
    model.check(job.chain)
    job.chain.visited(model.process.schedule)


def sample_batches(
    model: Model, job: Job, *, first: int = 0, on_step: Callable[[], None] | None = None
) -> Iterator[tuple[range, Tensor]]:
    """Yield (indices, images) a batch, images float32 [b, C, H, W] in about [-1, 1]: numbers ``first``..num-1 in order.

    A smaller last batch is filled up and the surplus dropped, so that the arithmetic of an image does not depend on how
    many follow it; only a job of less than a batch computes just its own. ``on_step()`` is called after each step.
    Raises UserError as `check`, NotFiniteError for weights that answer with NaN.
    """
    check(model, job)
    for begin in range(first, job.num, job.batch_size):
        yield batch(model, job, begin, on_step)


def batch(model: Model, job: Job, begin: int, on_step: Callable[[], None] | None = None) -> tuple[range, Tensor]:
    """(indices, images) of the batch that begins at an image's number; see `sample_batches`."""
    for step in steps(model, job, begin, on_step)[1]:
        x = step.x
    indices = range(begin, min(begin + job.batch_size, job.num))
    return indices, x[: len(indices)].clone()  # an ordinary tensor, of which gradients may be asked


def steps(
    model: Model, job: Job, begin: int, on_step: Callable[[], None] | None = None
) -> tuple[range, Iterator[Step]]:
    """(indices, steps) of the batch that begins at an image's number: a whole one, unless the job is of less."""
    computed = range(begin, begin + min(job.batch_size, job.num))

    def taken() -> Iterator[Step]:
        with within_memory("batch_size"):
            slots = torch.tensor(computed, device=model.device)
            for step in model.draw(job.chain, slots, model.condition(slots, job.label, job.shares, job.condition)):
                if on_step is not None:
                    on_step()
                yield step

    return computed, taken()
