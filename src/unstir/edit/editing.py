"""One edit under way: what is asked of the model is checked, its calls counted, its settings recorded."""

import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from unstir.chain import Chain
from unstir.data.disk import file_sha256
from unstir.diffusion.denoiser import Denoise, Prediction
from unstir.diffusion.draw import steered
from unstir.diffusion.samplers import Step
from unstir.errors import UserError, within_memory
from unstir.generate.drawing import Job
from unstir.pictures.grid import named_grid, of_class, titled
from unstir.progress import counting
from unstir.runs.model import Model

MOST = 10_000  # results in one picture
Picture = Path | bytes
"""A picture file, or the bytes of one."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Edited:
    """Pixels ``given`` (the images, and what a mask left of one) and ``made``: uint8 [n, C, H, W] and [m, C, H, W].

    ``settings`` are all that decides the pixels, as JSON has it. ``calls`` are the network calls that were made, each
    of a batch of images; ``besides`` says in words what guidance added. ``nrow`` are the tiles in a row of the picture,
    ``names`` what each of them is, the given ones first, or none at all; ``psnr``, in decibels, says how well each
    inverted image came back; ``keep``, bool [1, 1, H, W], is what was not filled in.
    """

    given: Tensor
    made: Tensor
    settings: dict[str, Any]
    calls: int = 0
    besides: str = ""
    nrow: int = 10
    psnr: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    keep: Tensor | None = None

    def picture(self) -> Image:
        """All tiles, the given ones first, each below its name, and all below the classes that were asked for."""
        tiles = named_grid(torch.cat((self.given, self.made)), self.nrow, self.names or None)
        numbers = self.settings.get("labels") or [self.settings["label"]]
        return titled(tiles, " to ".join(map(of_class, numbers, self.settings["classes"])))


class Editing:
    """A model and the job of an edit, of which result i is a function of ``chain.seed`` and i.

    The job's ``label`` is the class of the image, or its ``condition`` what else describes it, needed where the network
    knows them unless it was trained with some hidden. ``chain`` is the job's own as the edit takes it: filling in is
    ancestral, inverting is DDIM without randomness or guidance. Raises UserError for a job or a chain that misfits.
    """

    def __init__(self, model: Model, job: Job, chain: Chain) -> None:
        if not 1 <= job.num <= MOST:
            raise UserError("num", job.num, f"must be 1 to {MOST}", {"num": 1 if job.num < 1 else MOST})
        if job.batch_size < 1:
            raise UserError("batch_size", job.batch_size, "must be at least 1", {"batch_size": 1})
        if chain.times and chain.times[-1]:
            raise UserError("times", list(chain.times), "must end at 0 for an edit", {"times": None})
        model.kind.check_means(model.folder, " for whole chains from noise")
        self.label = model.labels.or_null(job.label)
        model.check_condition(job.condition)
        if model.conditions is not None and job.condition is None and not model.hides:
            raise UserError("condition", None, "must describe the image, for none were hidden in training")
        told = job.label is not None or job.condition is not None
        if not told and model.guide is None and model.hides:
            chain = chain.changed(guidance=1.0)  # the network is not told what it could be led to
        model.check(chain)
        if not told and model.guide is not None:  # which has to do without a class too
            model.guide.labels.or_null(None)
        self.model, self.job, self.chain, self.calls = model, job, chain, 0

    def done(
        self,
        edit: str,
        files: Mapping[str, Picture],
        given: Tensor,
        made: Tensor,
        names: Sequence[str],
        *,
        nrow: int = 10,
        psnr: tuple[float, ...] = (),
        besides: str | None = None,
        **options: Any,
    ) -> Edited:
        """What came of an ``edit``, with all that decides its pixels: its ``options``, and what was in force.

        ``files`` are the pictures that were read, by what they are. ``names`` are those of the first tiles; results
        follow, by their numbers. ``besides`` says what guidance added, where that is not what it adds to the chain.
        """
        named = [label for label in options.get("labels") or [self.job.label] if label is not None]
        known, condition = self.model.conditions, self.job.condition
        settings = {
            "edit": edit,
            **{kind: _recorded(picture) for kind, picture in files.items()},
            **options,
            "num": self.job.num,
            "batch_size": self.job.batch_size,
            "label": self.job.label,
            "condition": known.hash(condition) if known and condition is not None else None,
            "classes": [self.model.labels.names[label] for label in named],
            "chain": self.chain.in_effect(),
            **self.model.provenance(),
        }
        results = (f"result {i}" if i < 10 else f"{i}" for i in range(len(given) + len(made) - len(names)))
        cost = self.model.besides(self.chain) if besides is None else besides
        return Edited(given, made, settings, self.calls, cost, nrow, psnr, (*names, *results))

    def condition(self, indices: Tensor) -> Tensor | None:
        """What the network is told of results, int64 [B]: row n of the job's condition for image n, or nothing."""
        model, given = self.model, self.job.condition
        if model.conditions is not None and given is None:
            return model.conditions.nothing(len(indices), model.device)
        return model.condition(indices // MOST, self.label, given=given)

    def guided(self, indices: Tensor) -> Denoise:
        """The denoiser for results by their indices, told the condition, guided and clamped as the chain says."""
        condition = self.condition(indices)
        denoise, weak = self.model.denoise(condition), self.model.away_from(condition)
        return steered(denoise, self.chain, self.model.process, weak, indices)

    def of_class(self, label: int | None) -> Denoise:
        """The denoiser of any batch for one label, or the job's first condition, clamped as the chain says."""

        def denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
            first = torch.zeros(len(x_t), dtype=torch.int64, device=x_t.device)
            return self.model.denoiser(x_t, t, label if self.model.conditions is None else self.condition(first))

        return steered(denoise, self.chain, self.model.process)

    @contextmanager
    def counted(self, total: int) -> Iterator[None]:
        """Count each network call, out of ``total``."""

        def called(*_: Any) -> None:
            self.calls += 1
            count(self.calls, total)

        with counting("editing", "network calls") as count:
            hook = self.model.denoiser.net.register_forward_hook(called)
            try:
                yield
            finally:
                hook.remove()

    @torch.no_grad()
    def results(
        self, chain: Callable[[Tensor], Iterable[Step]], calls: int, indices: Tensor
    ) -> Generator[Step, None, Tensor]:
        """What the chain makes of ``indices``, int64 [n], in units of the data, after the steps of each batch."""
        batches = torch.split(indices.to(self.model.device), self.job.batch_size)
        with self.counted(calls * len(batches)):
            made = []
            for batch in batches:
                with within_memory("batch_size"):
                    for step in chain(batch):
                        yield step
                    made.append(self.model.to_units(step.x))
            return torch.cat(made)


def finished(steps: Generator[Step, None, Result]) -> Result:
    """What comes of steps, which are all taken."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def last(steps: Iterable[Step]) -> Tensor:
    """Where the steps end."""
    *_, end = steps
    return end.x


def psnr(a: Tensor, b: Tensor) -> float:
    """The peak signal-to-noise ratio of two batches of images in [-1, 1], in decibels: 10 log10(2^2 / mean square)."""
    error = (a - b).double().square().mean().item()
    return 10 * math.log10(4 / error) if error > 0 else math.inf


def _recorded(picture: Picture) -> dict[str, str]:
    if isinstance(picture, bytes):
        return {"sha256": hashlib.sha256(picture).hexdigest()}
    return {"name": picture.name, "sha256": file_sha256(picture)}
