"""The five edits: a model and picture files in, pixels out; the mathematics is in `diffusion.editing`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from unstir import randomness
from unstir.chain import Chain
from unstir.diffusion import editing as mathematics
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.samplers.ddim import ddim
from unstir.diffusion.samplers.step import Step
from unstir.edit.editing import Editing, labels_for, last
from unstir.edit.reading import Box, read_image, read_mask
from unstir.errors import UserError
from unstir.generate import Job
from unstir.pictures.caption import of_class
from unstir.pictures.grid import grid, titled
from unstir.pixels import to_uint8
from unstir.progress import Progress
from unstir.randomness import Key
from unstir.runs.model import Model

GREY = 128
"""The pixels that stand for what is to be filled in."""


@dataclass(frozen=True)
class Edited:
    """Pixels ``given`` (the images, and what a mask left of one) and ``made``: uint8 [n, C, H, W] and [m, C, H, W].

    ``nrow`` is the number of tiles in a row of the picture; ``psnr`` in decibels says how well each inverted image came
    back.
    ``settings`` are all that decides the pixels, as JSON can hold it: the same settings give the same pixels. ``calls``
    are the network calls that were made, each of a batch of images.
    """

    given: Tensor
    made: Tensor
    nrow: int = 10
    psnr: tuple[float, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    calls: int = 0

    def picture(self) -> Image:
        """All tiles, the given ones first, below the names of the classes that were asked for."""
        tiles = grid(torch.cat((self.given, self.made)), self.nrow)
        numbers = self.settings.get("labels") or [self.settings.get("label")]
        return titled(tiles, " to ".join(map(of_class, numbers, self.settings.get("classes", []))))


def inpaint(
    model: Model,
    image: Path,
    job: Job,
    *,
    mask: Path | None = None,
    box: Box | None = None,
    resamples: int = 10,
    jump: int = 1,
    progress: Progress | None = None,
) -> Edited:
    """Fill in the white part of the picture ``mask``, or the ``box`` (x, y, width, height) in pixels of the model.

    A mask has the size of the model's images, or that of the image file, with which it is then cropped and resized.
    ``resamples`` and ``jump`` are those of `editing.inpaint`; ``progress(done, total)`` counts network calls. Raises
    UserError for what cannot be read or does not fit the model.
    """
    if resamples < 1 or jump < 1:
        raise UserError(f"resamples={resamples} and jump={jump} must be at least 1")
    x_0, keep = read_image(image, model.shape), read_mask(mask, box, image, model.shape)
    editing = Editing(model, job, job.chain.changed(sampler="ancestral"))
    chain, process, shape = editing.chain, model.process, model.shape
    times = chain.times(process.schedule)

    def fill(indices: Tensor) -> Iterable[Step]:
        def noise(use: str, t: int, repeat: int) -> Tensor:
            return randomness.normal(Key(chain.seed, f"inpaint {use}", repeat * (process.T + 1) + t, indices), shape)

        known, x_T = x_0.to(model.device).expand(len(indices), *shape), starting_noise(chain.seed, indices, shape)
        how: Any = {"resamples": resamples, "jump": jump, "variance": chain.variance}
        denoise = editing.guided(indices)
        return mathematics.inpaint(denoise, process, known, keep.to(model.device), x_T, times, noise, **how)

    made = editing.results(fill, mathematics.inpainting_calls(len(times) - 1, resamples, jump), progress)
    pixels = to_uint8(x_0)
    files = {"image": image} if mask is None else {"image": image, "mask": mask}
    settings = editing.recorded("inpaint", files, box=box, resamples=resamples, jump=jump)
    return Edited(torch.cat((pixels, pixels.where(keep, GREY))), made, settings=settings, calls=editing.calls)


def vary(model: Model, image: Path, job: Job, *, strength: float, progress: Progress | None = None) -> Edited:
    """Images like one, and the less so the greater the ``strength`` in (0, 1]; see `editing.vary`.

    ``progress(done, total)`` counts network calls. Raises UserError for what cannot be read or does not fit the model.
    """
    x_0 = read_image(image, model.shape)
    mathematics.start_time(model.process.T, strength)
    editing = Editing(model, job, job.chain)
    part, chain = mathematics.below(model.process, strength, editing.chain)

    def like_it(indices: Tensor) -> Iterable[Step]:
        labels = labels_for(indices, editing.label)
        denoise, weak = model.denoise(labels), model.away_from(labels)
        return mathematics.vary(denoise, model.process, x_0.to(model.device), strength, indices, chain, weak)

    settings = editing.recorded("vary", {"image": image}, strength=strength)
    made = editing.results(like_it, chain.calls(part.schedule), progress)
    return Edited(to_uint8(x_0), made, settings=settings, calls=editing.calls)


@torch.inference_mode()
def invert(model: Model, image: Path, job: Job, *, refinements: int = 2, progress: Progress | None = None) -> Edited:
    """The noise that DDIM makes an image of, and the image that it makes of that noise, with their PSNR.

    ``refinements`` are those of `editing.invert`; ``progress(done, total)`` counts network calls. Raises UserError for
    what cannot be read or does not fit the model.
    """
    _check_refinements(refinements)
    x_0 = read_image(image, model.shape)
    editing = Editing(_without_guide(model), job, _plain(job.chain))
    times, denoise = editing.chain.times(model.process.schedule), editing.of_class(editing.label)
    with editing.counting(progress, (len(times) - 1) * (refinements + 2)):
        x_T = last(mathematics.invert(denoise, model.process, x_0.to(model.device), times[::-1], refinements))
        back = last(ddim(denoise, model.process, x_T, times, lambda _: x_T))  # no noise is asked for
    made, came_back = torch.cat((to_uint8(x_T), to_uint8(back))), psnr(back.clamp(-1, 1).cpu(), x_0)
    settings = editing.recorded("invert", {"image": image}, refinements=refinements)
    return Edited(to_uint8(x_0), made, psnr=(came_back,), settings=settings, calls=editing.calls)


@torch.inference_mode()
def blend(
    model: Model,
    ends: tuple[Path, Path] | tuple[int, int],
    job: Job,
    *,
    count: int = 8,
    labels: tuple[int, int] | None = None,
    refinements: int = 2,
    progress: Progress | None = None,
) -> Edited:
    """``count`` images from one to another through their noises, both ends among them; see `editing.blend`.

    The ``ends`` are picture files, which are inverted, or numbers of images that the model would draw, whose noises are
    known. ``labels`` are the classes of the two, where the network knows classes (by default both are
    ``job.label``). ``progress(done, total)`` counts network calls. Raises UserError for what cannot be read or
    does not fit the model.
    """
    weights = _weights(count)
    _check_refinements(refinements)
    asked = labels or (job.label, job.label)
    first, second = (model.labels.or_null(label, "--labels") for label in asked)
    files = [end for end in ends if isinstance(end, Path)]
    images = [read_image(file, model.shape) for file in files]
    editing = Editing(_without_guide(model), replace(job, label=asked[0]), _plain(job.chain))
    times, process, w = editing.chain.times(model.process.schedule), model.process, weights.to(model.device)
    one = editing.of_class(first)
    pair = one, one if first == second else editing.of_class(second)
    calls = (2 * (refinements + 1) if images else 0) + (1 if first == second else 2)
    how: dict[str, Any] = {"refinements": refinements} if images else {"numbers": list(ends)}
    with editing.counting(progress, (len(times) - 1) * calls):
        if images:
            given = images[0].to(model.device), images[1].to(model.device)
            made = last(mathematics.blend(pair, process, given, w, times, refinements))
        else:
            noises = starting_noise(editing.chain.seed, torch.tensor(ends, device=model.device), model.shape)
            made = last(mathematics.between(pair, process, (noises[:1], noises[1:]), w, times))
    named = {f"image{number}": file for number, file in enumerate(files, start=1)}
    settings = editing.recorded("blend", named, count=count, labels=asked, **how)
    came_back = tuple(psnr(made[at].clamp(-1, 1).cpu(), image[0]) for at, image in zip((0, -1), images, strict=False))
    shown = to_uint8(torch.cat(images)) if images else to_uint8(made[:0])
    return Edited(shown, to_uint8(made), count + len(shown), came_back, settings, editing.calls)


def morph(
    model: Model, job: Job, *, labels: tuple[int, int], count: int = 8, progress: Progress | None = None
) -> Edited:
    """``count`` images from one class to another out of one noise, in each of ``num`` rows; see `editing.mixed`.

    ``labels`` are the classes at the two ends. ``progress(done, total)`` counts network calls. Raises UserError for
    labels or a job that do not fit the model.
    """
    weights = _weights(count)
    if not model.labels.count:
        raise UserError("this network knows no classes to morph between; name a run that does, or blend two images")
    for label in labels:
        model.labels.check(label)
    editing = Editing(model, replace(job, label=labels[0]), job.chain)
    if editing.chain.guidance == 0:
        raise UserError("at guidance=0 the network is given no class to morph between; 1 is without guidance")

    def between(cells: Tensor) -> Iterable[Step]:
        rows, w = cells // count, weights.to(model.device)[cells % count]
        first, second = (labels_for(rows, label) for label in labels)
        weak, other = model.away_from(first), model.away_from(second)
        if model.guide is not None and weak and other:
            weak = mathematics.mixed(weak, other, w)
        denoise = mathematics.mixed(model.denoise(first), model.denoise(second), w)
        x_T = starting_noise(editing.chain.seed, rows, model.shape)
        return draw(denoise, model.process, x_T, rows, editing.chain, weak)

    hidden = editing.chain.guidance != 1 and model.guide is None  # the network asked once more; a guide is another one
    calls = (2 + hidden) * editing.chain.calls(model.process.schedule)
    made = editing.results(between, calls, progress, cells=count)
    settings = editing.recorded("morph", {}, labels=list(labels), count=count)
    return Edited(made[:0], made, nrow=count, settings=settings, calls=editing.calls)


def psnr(a: Tensor, b: Tensor) -> float:
    """The peak signal-to-noise ratio of two batches of images in [-1, 1], in decibels: 10 log10(2^2 / mean square)."""
    error = (a - b).double().square().mean().item()
    return 10 * math.log10(4 / error) if error > 0 else math.inf


def _without_guide(model: Model) -> Model:
    return model if model.guide is None else replace(model, guide=None)


def _plain(chain: Chain) -> Chain:
    return chain.changed(sampler="ddim", eta=0.0, guidance=1.0)


def _weights(count: int) -> Tensor:
    if count < 2:
        raise UserError(f"count={count} must be at least 2, for both ends are among the images")
    return torch.linspace(0, 1, count)


def _check_refinements(refinements: int) -> None:
    if refinements < 0:
        raise UserError(f"refinements={refinements} must be at least 0")
