"""What is to be made of a trained run, and what of that is possible."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.errors import UserError
from unstir.runs import build
from unstir.runs.guide import Guide, check_guide
from unstir.runs.run import Run
from unstir.theory.variance import check_variance

MOST_IMAGES = 100_000_000
GOLDEN = 2_654_435_769
"""2^32 over the golden ratio."""
MOST_SHARES = 1 << 30
"""The greatest sum of shares: their products with the fractions are whole numbers of 63 bits."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to make: ``num`` images by a ``chain`` from the weights of ``step`` (averaged if ``ema``), and how.

    ``label`` is a class index, or None where the network knows none, or where each class is drawn in turn, or as often
    as ``shares`` (numbers of images by class, in any unit) say. Guidance leads away from the ``guide`` (autoguidance)
    or, with None, from the network without its label. ``batch_size`` images are computed at once on ``device`` in
    ``dtype`` ("float32", "bfloat16" or "auto").
    """

    num: int
    chain: Chain
    step: int
    ema: bool = True
    label: int | None = None
    shares: tuple[int, ...] = ()
    guide: Guide | None = None
    batch_size: int = 64
    device: str = "auto"
    dtype: str = "float32"

    def name(self) -> str:
        """A folder name of its own for all images of these settings, whatever their number and batches."""
        rest = plain(replace(self, num=0, batch_size=0, device=""))
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:6]
        label = "" if self.label is None else f"-label{self.label}"
        return f"step{self.step}-{self.chain.sampler}{self.chain.steps}{label}-seed{self.chain.seed}-{digest}"


def plain(job: Job) -> dict[str, Any]:
    """The settings of a job as JSON has them, without shares where there are none."""
    settings = dataclasses.asdict(job)
    shares = list(settings.pop("shares"))
    return {**settings, "shares": shares} if shares else settings


def check(run: Run, job: Job) -> None:
    """Raise UserError for a job that this run cannot do."""
    for name, value in (("num", job.num), ("batch_size", job.batch_size)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    if job.num > MOST_IMAGES:
        raise UserError(f"num={job.num} is more than {MOST_IMAGES}, the most a folder is made for; use several seeds")
    if job.batch_size > MOST_IMAGES:
        raise UserError(f"batch_size={job.batch_size} is more than {MOST_IMAGES}, the most of a job; 64 is usual")
    classes = run.config.model.num_classes
    if job.label is not None and not classes:
        raise UserError(f"label={job.label} was given, but this network knows no classes; leave it out")
    if job.label is not None and not 0 <= job.label < classes:
        raise UserError(f"label={job.label} is outside 0..{classes - 1}, the classes of this run")
    check_variance(job.chain.variance, run.config.diffusion.learned_variance)
    if job.shares and (len(job.shares) != classes or min(job.shares) < 0 or not 1 <= sum(job.shares) < MOST_SHARES):
        raise UserError(
            f"shares={job.shares} must be {classes} numbers, one a class, not all 0, with a sum below {MOST_SHARES}"
        )
    job.chain.times(build.schedule(run.config.diffusion))
    if job.guide is not None:
        check_guide(job.guide, run, job.step, job.chain.guidance)
    if job.chain.guidance != 1 and job.guide is None and not run.config.train.label_dropout:
        raise UserError(
            f"guidance={job.chain.guidance} needs a network trained with train.label_dropout; this one was not. Name a "
            "less trained step of it with --guide to be led away from"
        )
    build.device(job.device)


def labels(run: Run, job: Job, indices: Tensor) -> Tensor | None:
    """The class that each image of a job is asked to show, int64 [B]; None where the network knows no classes.

    By shares, image i has the class in whose part of [0, 1] the fraction of (i + 1/2) / golden ratio lies, which keeps
    to the shares within a few images, however many are drawn (Weyl's sequence of least discrepancy; in whole numbers,
    as a float has no fraction left where i is large).
    """
    if job.label is not None:
        return torch.full_like(indices, job.label)
    if not job.shares:
        return run.labels_of(indices)
    edges = torch.tensor(job.shares, device=indices.device).cumsum(0)
    fractions = (2 * indices + 1) * GOLDEN % (1 << 33)  # in units of 2^-33
    return torch.searchsorted(edges, fractions * edges[-1] >> 33, right=True)
