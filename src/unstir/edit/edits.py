"""The five edits: model and pictures in, pixels out; UserError for what cannot be read or does not fit."""

import logging
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from unstir import randomness
from unstir.diffusion import editing as mathematics
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.samplers import Step
from unstir.diffusion.samplers.ddim import ddim
from unstir.edit.editing import MOST, Edited, Editing, Picture, finished, last, psnr
from unstir.edit.files import Box, named, notes_on, read_image, read_mask, shown
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.pixels import to_uint8
from unstir.randomness import Key
from unstir.runs.model import Model

logger = logging.getLogger(__name__)
GREY = 128  # of what is to be filled in


def preview(model: Model, image: Picture) -> tuple[Image, list[str]]:
    """The part of a picture that an edit takes (`shown`), and what is done to it, in words."""
    _picture(model, image)
    return shown(image, model.shape), notes_on(image, model.shape)


def inpaint(
    model: Model,
    image: Picture,
    job: Job,
    *,
    mask: Picture | None = None,
    box: Box | None = None,
    resamples: int = 3,
    jump: int = 1,
) -> Edited:
    """Fill in the white or erased part of the picture ``mask``, or the ``box`` (x, y, width, height) in model pixels.

    A mask has the size of the model's images, or that of the image file, with which it is then cropped and resized.
    ``resamples`` and ``jump`` are those of `editing.inpaint`: 9 steps of the job's chain taken 3 times are 25 calls.
    """
    return finished(inpaint_steps(model, image, job, mask=mask, box=box, resamples=resamples, jump=jump))


def inpaint_steps(
    model: Model,
    image: Picture,
    job: Job,
    *,
    mask: Picture | None = None,
    box: Box | None = None,
    resamples: int = 3,
    jump: int = 1,
) -> Generator[Step, None, Edited]:
    """The steps of `inpaint`, a batch of results after the other, and then what it returns."""
    x_0, keep = _picture(model, image), read_mask(mask, box, image, model.shape)
    editing, made = yield from filled(model, x_0, keep, job, resamples, jump)
    pixels = to_uint8(x_0)
    files: dict[str, Picture] = {"image": image} if mask is None else {"image": image, "mask": mask}
    given, names = torch.cat((pixels, pixels.where(keep, GREY))), ("given", "to fill in")
    edited = editing.done("inpaint", files, given, made, names, box=box, resamples=resamples, jump=jump)
    return replace(edited, keep=keep)


def filled(
    model: Model, x_0: Tensor, keep: Tensor, job: Job, resamples: int, jump: int
) -> Generator[Step, None, tuple[Editing, Tensor]]:
    """The job's results for each of N images, float [N, C, H, W] in [-1, 1]: [N num, C, H, W] in units of the data.

    ``keep`` is bool [N or 1, 1 or C, H, W]. The noise of result i of image n is that of number n `MOST` + i.
    """
    for name, value in (("resamples", resamples), ("jump", jump)):
        if value < 1:
            raise UserError(name, value, "must be at least 1", {name: 1})
    editing, hole = Editing(model, job, job.chain.changed(sampler="ancestral")), int((~keep).sum())
    logger.info(f"{hole:,} of {keep.numel():,} pixels are filled in ({hole / keep.numel():.0%})")
    chain, process, shape = editing.chain, model.process, model.shape
    times, keep = chain.visited(process.schedule), keep.expand(len(x_0), -1, -1, -1)

    def fill(indices: Tensor) -> Iterable[Step]:
        def noise(use: str, t: int, repeat: int) -> Tensor:
            return randomness.normal(Key(chain.seed, f"inpaint {use}", repeat * (process.T + 1) + t, indices), shape)

        image, x_T = (indices // MOST).cpu(), starting_noise(chain.seed, indices, shape)
        known, mask = x_0[image].to(model.device), keep[image].to(model.device)
        given = editing.guided(indices), process, known, mask, x_T, times, noise
        return mathematics.inpaint(*given, resamples=resamples, jump=jump, variance=chain.variance)

    indices = (torch.arange(len(x_0))[:, None] * MOST + torch.arange(job.num)).flatten()
    calls = mathematics.inpainting_calls(len(times) - 1, resamples, jump)
    return editing, (yield from editing.results(fill, calls, indices))


def vary(model: Model, image: Picture, job: Job, *, strength: float) -> Edited:
    """Images like one, the less so the greater the ``strength`` in (0, 1]; see `editing.vary` and its refusals."""
    return finished(vary_steps(model, image, job, strength=strength))


def vary_steps(model: Model, image: Picture, job: Job, *, strength: float) -> Generator[Step, None, Edited]:
    """The steps of `vary`, a batch of images after the other, and then what it returns."""
    x_0 = _picture(model, image)
    editing = Editing(model, job, job.chain)
    part, chain = mathematics.below(model.process, strength, editing.chain)
    asked, habit = editing.chain, (model.chain.guidance, model.chain.guidance_low)
    if asked.guidance != 1 and asked.guidance_low > part.T and (asked.guidance, asked.guidance_low) != habit:
        never = f"never acts, because at strength={strength:g} the chain begins at t = {part.T}"
        remedies = {"guidance_low": part.T}, "take a greater strength"
        raise UserError("guidance_low", asked.guidance_low, never, remedies)

    def like_it(indices: Tensor) -> Iterable[Step]:
        condition = editing.condition(indices)
        denoise, weak = model.denoise(condition), model.away_from(condition)
        return mathematics.vary(denoise, model.process, x_0.to(model.device), strength, indices, chain, weak)

    made = yield from editing.results(like_it, chain.calls(part.schedule), torch.arange(job.num))
    besides = model.besides(chain, part)
    return editing.done("vary", {"image": image}, to_uint8(x_0), made, ("given",), besides=besides, strength=strength)


@torch.no_grad()
def invert(model: Model, image: Path, job: Job, *, refinements: int = 2) -> Edited:
    """The noise that DDIM makes an image of, and the image made of that, with their PSNR; see `editing.invert`."""
    x_0, editing = _picture(model, image), _inverting(model, job, refinements)
    times, denoise = editing.chain.visited(model.process.schedule), editing.of_class(editing.label)
    with editing.counted((len(times) - 1) * (refinements + 2)):
        x_T = last(mathematics.invert(denoise, model.process, x_0.to(model.device), times[::-1], refinements))
        back = last(ddim(denoise, model.process, x_T, times, lambda _: x_T))  # no noise is asked for
    made, came_back = torch.cat((to_uint8(x_T), to_uint8(back))), (psnr(back.clamp(-1, 1).cpu(), x_0),)
    given, names = to_uint8(x_0), ("given", "noise", "back")
    return editing.done("invert", {"image": image}, given, made, names, psnr=came_back, refinements=refinements)


@torch.no_grad()
def blend(
    model: Model,
    ends: tuple[Path, Path] | tuple[int, int],
    job: Job,
    *,
    count: int = 8,
    labels: tuple[int, int] | None = None,
    refinements: int = 2,
) -> Edited:
    """``count`` images from one to another through their noises, both ends among them; see `editing.between`.

    The ``ends`` are picture files, which are inverted, or numbers of images that the model would draw, whose noises are
    known. ``labels`` are the classes of the two, where the network knows classes: by default ``job.label`` or, of
    numbers, those that `unstir sample` gives them.
    """
    weights = _weights(count)
    pair_of_labels = labels or _classes(model, ends, job.label)
    first, second = (model.labels.or_null(label, "labels") for label in pair_of_labels)
    files = {f"image{number}": end for number, end in enumerate(ends, start=1) if isinstance(end, Path)}
    if below := [end for end in ends if isinstance(end, int) and end < 0]:
        raise UserError("numbers", below[0], "must be 0 or more")
    images = [_picture(model, file) for file in files.values()]
    editing = _inverting(model, replace(job, label=pair_of_labels[0]), refinements)
    times, process, w = editing.chain.visited(model.process.schedule), model.process, weights.to(model.device)
    of_first = editing.of_class(first)
    pair = of_first, of_first if first == second else editing.of_class(second)
    calls = (2 * (refinements + 1) if images else 0) + (1 if first == second else 2)
    with editing.counted((len(times) - 1) * calls):
        if images:
            one, other = (
                last(mathematics.invert(denoise, process, image.to(model.device), times[::-1], refinements))
                for denoise, image in zip(pair, images, strict=True)
            )
        else:
            numbers = torch.tensor(ends, device=model.device)
            one, other = starting_noise(editing.chain.seed, numbers, model.shape)[:, None]
        made = last(mathematics.between(pair, process, (one, other), w, times))
    came_back = tuple(psnr(made[at].clamp(-1, 1).cpu(), image[0]) for at, image in zip((0, -1), images, strict=False))
    given = to_uint8(torch.cat(images) if images else made[:0])
    origin: dict[str, Any] = {"refinements": refinements} if images else {"numbers": list(ends)}
    options = {"count": count, "labels": pair_of_labels, **origin}
    names, nrow = (*("first", "second")[: len(given)], *_shares(weights)), count + len(given)
    return editing.done("blend", files, given, to_uint8(made), names, nrow=nrow, psnr=came_back, **options)


def _classes(model: Model, ends: tuple[Any, Any], label: int | None) -> tuple[int | None, ...]:
    drawn = model.labels.of(torch.tensor(ends), label) if isinstance(ends[0], int) else None
    return (label, label) if drawn is None else tuple(drawn.tolist())


def morph(model: Model, job: Job, *, labels: tuple[int, int], count: int = 8) -> Edited:
    """``count`` images from one of two classes to the other, out of one noise in each row; see `editing.mixed`."""
    weights = _weights(count)
    if not model.labels.count:
        raise UserError("labels", labels, "are unknown to a network without classes", "blend two images")
    for label in labels:
        model.labels.check(label)
    editing = Editing(model, replace(job, label=labels[0]), job.chain)
    if editing.chain.guidance == 0:
        raise UserError("guidance", 0, "gives the network no class to morph between", {"guidance": 1})

    def between(cells: Tensor) -> Iterable[Step]:
        rows, w = cells // count, weights.to(model.device)[cells % count]
        first, second = (model.labels.of(rows, label) for label in labels)
        weak, other = model.away_from(first), model.away_from(second)
        if model.guide is not None and weak and other:
            weak = mathematics.mixed(weak, other, w)
        denoise = mathematics.mixed(model.denoise(first), model.denoise(second), w)
        x_T = starting_noise(editing.chain.seed, rows, model.shape)
        return draw(denoise, model.process, x_T, rows, editing.chain, weak)

    hidden = editing.chain.guidance != 1 and model.guide is None  # the network asked once more; a guide is another one
    calls = (2 + hidden) * editing.chain.calls(model.process.schedule)
    made = finished(editing.results(between, calls, torch.arange(job.num * count)))
    acts = hidden and editing.chain.guidance_acts(model.process.schedule)  # by a call of its own at each step
    names, ends, besides = _shares(weights) * job.num, list(labels), "" if acts else None
    return editing.done("morph", {}, made[:0], made, names, nrow=count, besides=besides, labels=ends, count=count)


def _picture(model: Model, picture: Picture) -> Tensor:
    """A picture as `read_image` reads it; UserError where the model's images are no pictures."""
    if not model.in_pixels:
        values = f"is a picture, and {model.folder} makes values"
        raise UserError("", named(picture), values, "fill in arrays: edit inpaint x.npy")
    return read_image(picture, model.shape)


def _inverting(model: Model, job: Job, refinements: int) -> Editing:
    if refinements < 0:
        raise UserError("refinements", refinements, "must be at least 0", {"refinements": 0})
    alone = model if model.guide is None else replace(model, guide=None)
    return Editing(alone, job, job.chain.changed(sampler="ddim", eta=0.0, guidance=1.0))


def _weights(count: int) -> Tensor:
    if count < 2:
        raise UserError("count", count, "must be at least 2, because both ends are among the images", {"count": 2})
    return torch.linspace(0, 1, count)


def _shares(weights: Tensor) -> list[str]:
    return [f"{w:.0%}" for w in weights.tolist()]
