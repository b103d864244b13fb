"""The five edits: a run and picture files in, pixels out; the mathematics is in `diffusion.editing`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from unstir import randomness
from unstir.diffusion import editing
from unstir.diffusion.draw import Chain, draw, starting_noise
from unstir.diffusion.samplers import Step, ddim
from unstir.edit.bench import Bench, Progress, Settings, checked_label, last
from unstir.edit.reading import Box, read_image, read_mask
from unstir.errors import UserError
from unstir.pictures.caption import of_class
from unstir.pictures.grid import grid
from unstir.pictures.named import titled
from unstir.pixels import to_uint8
from unstir.randomness import Key
from unstir.runs.run import Run

GREY = 128
"""The pixels that stand for what is to be filled in."""


@dataclass(frozen=True)
class Edited:
    """Pixels ``given`` (the images, and what a mask left of one) and ``made``: uint8 [n, C, H, W] and [m, C, H, W].

    ``nrow`` is the number of tiles in a row of the picture; ``psnr`` in decibels says how well each inverted image came
    back.
    ``settings`` are all that decides the pixels, as JSON can hold it: the same settings give the same pixels. ``calls``
    are the network calls that were made, each of up to `bench.BATCH` images.
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
    run: Run,
    image: Path,
    settings: Settings,
    *,
    mask: Path | None = None,
    box: Box | None = None,
    resamples: int = 10,
    jump: int = 1,
    progress: Progress | None = None,
) -> Edited:
    """Fill in the white part of the picture ``mask``, or the ``box`` (x, y, width, height) in pixels of the run.

    A mask has the size of the run's images, or that of the image file, with which it is then cropped and resized.
    ``resamples`` and ``jump`` are those of `editing.inpaint`; ``progress(done, total)`` counts network calls. Raises
    UserError for what cannot be read or does not fit the run.
    """
    if resamples < 1 or jump < 1:
        raise UserError(f"resamples={resamples} and jump={jump} must be at least 1")
    x_0, keep = read_image(image, run), read_mask(mask, box, image, run)
    bench = Bench(run, settings, replace(settings.chain, sampler="ancestral", eta=0.0))
    chain, process, shape = bench.chain, bench.process, run.data.shape
    times = chain.times(process.schedule)

    def fill(indices: Tensor) -> Iterable[Step]:
        def noise(use: str, t: int, repeat: int) -> Tensor:
            return randomness.normal(Key(chain.seed, f"inpaint {use}", repeat * (process.T + 1) + t, indices), shape)

        denoise = bench.steered(bench.told(indices, bench.label), bench.weak(indices, bench.label), indices)
        known, x_T = x_0.to(bench.device).expand(len(indices), *shape), starting_noise(chain.seed, indices, shape)
        how: Any = {"resamples": resamples, "jump": jump, "variance": chain.variance}
        return editing.inpaint(denoise, process, known, keep.to(bench.device), x_T, times, noise, **how)

    made = bench.results(fill, editing.inpainting_calls(len(times) - 1, resamples, jump), progress)
    pixels = to_uint8(x_0)
    files = {"image": image} if mask is None else {"image": image, "mask": mask}
    used = bench.recorded("inpaint", files, box=box, resamples=resamples, jump=jump)
    return Edited(torch.cat((pixels, pixels.where(keep, GREY))), made, settings=used, calls=bench.calls)


def vary(run: Run, image: Path, settings: Settings, *, strength: float, progress: Progress | None = None) -> Edited:
    """Images like one, and the less so the greater the ``strength`` in (0, 1]; see `editing.vary`.

    ``progress(done, total)`` counts network calls. Raises UserError for what cannot be read or does not fit the run.
    """
    x_0 = read_image(image, run)
    editing.start_time(run.config.diffusion.T, strength)
    bench = Bench(run, settings, settings.chain)
    part, chain = editing.below(bench.process, strength, bench.chain)

    def like_it(indices: Tensor) -> Iterable[Step]:
        strong, weak = bench.told(indices, bench.label), bench.weak(indices, bench.label)
        return editing.vary(strong, bench.process, x_0.to(bench.device), strength, indices, chain, weak)

    used = bench.recorded("vary", {"image": image}, strength=strength)
    made = bench.results(like_it, chain.calls(part.schedule), progress)
    return Edited(to_uint8(x_0), made, settings=used, calls=bench.calls)


@torch.inference_mode()
def invert(
    run: Run, image: Path, settings: Settings, *, refinements: int = 2, progress: Progress | None = None
) -> Edited:
    """The noise that DDIM makes an image of, and the image that it makes of that noise, with their PSNR.

    ``refinements`` are those of `editing.invert`; ``progress(done, total)`` counts network calls. Raises UserError for
    what cannot be read or does not fit the run.
    """
    _check_refinements(refinements)
    x_0 = read_image(image, run)
    bench = Bench(run, settings, _plain(settings.chain))
    times = bench.chain.times(bench.process.schedule)
    bench.count(progress, (len(times) - 1) * (refinements + 2))
    denoise = bench.steered(bench.knowing(bench.label))
    x_T = last(editing.invert(denoise, bench.process, x_0.to(bench.device), times[::-1], refinements))
    back = last(ddim(denoise, bench.process, x_T, times, lambda _: x_T))  # no noise is asked for
    made, came_back = torch.cat((to_uint8(x_T), to_uint8(back))), psnr(back.clamp(-1, 1).cpu(), x_0)
    used = bench.recorded("invert", {"image": image}, refinements=refinements)
    return Edited(to_uint8(x_0), made, psnr=(came_back,), settings=used, calls=bench.calls)


@torch.inference_mode()
def blend(
    run: Run,
    ends: tuple[Path, Path] | tuple[int, int],
    settings: Settings,
    *,
    count: int = 8,
    labels: tuple[int, int] | None = None,
    refinements: int = 2,
    progress: Progress | None = None,
) -> Edited:
    """``count`` images from one to another by way of their noises, both ends among them; see `editing.blend`.

    The ``ends`` are picture files, which are inverted, or numbers of images that the run would draw, whose noises are
    known. ``labels`` are the classes of the two, where the network knows classes (by default both are
    ``settings.label``). ``progress(done, total)`` counts network calls. Raises UserError for what cannot be read or
    does not fit the run.
    """
    weights = _weights(count)
    _check_refinements(refinements)
    told = labels or (settings.label, settings.label)
    first, second = (checked_label(run, label, "--labels") for label in told)
    files = [end for end in ends if isinstance(end, Path)]
    images = [read_image(file, run) for file in files]
    bench = Bench(run, replace(settings, label=told[0]), _plain(settings.chain))
    times, process, w = bench.chain.times(bench.process.schedule), bench.process, weights.to(bench.device)
    one = bench.steered(bench.knowing(first))
    other = one if first == second else bench.steered(bench.knowing(second))
    calls = (2 * (refinements + 1) if images else 0) + (1 if one is other else 2)
    bench.count(progress, (len(times) - 1) * calls)
    if images:
        pair = images[0].to(bench.device), images[1].to(bench.device)
        made = last(editing.blend((one, other), process, pair, w, times, refinements))
        how: dict[str, Any] = {"refinements": refinements}
    else:
        noises = starting_noise(bench.chain.seed, torch.tensor(ends, device=bench.device), run.data.shape)
        made = last(editing.between((one, other), process, (noises[:1], noises[1:]), w, times))
        how = {"numbers": list(ends)}
    named = {f"image{number}": file for number, file in enumerate(files, start=1)}
    used = bench.recorded("blend", named, count=count, labels=told, **how)
    came_back = tuple(psnr(made[at].clamp(-1, 1).cpu(), image[0]) for at, image in zip((0, -1), images, strict=False))
    given = to_uint8(torch.cat(images)) if images else to_uint8(made[:0])
    return Edited(given, to_uint8(made), count + len(given), came_back, used, bench.calls)


def morph(
    run: Run, settings: Settings, *, labels: tuple[int, int], count: int = 8, progress: Progress | None = None
) -> Edited:
    """``count`` images from one class to another out of one noise, in each of ``num`` rows; see `editing.mixed`.

    ``labels`` are the classes at the two ends. ``progress(done, total)`` counts network calls. Raises UserError for
    labels or settings that do not fit the run.
    """
    weights = _weights(count)
    if not run.config.model.num_classes:
        raise UserError("this network knows no classes to morph between; name a run that does, or blend two images")
    ends = [checked_label(run, label) for label in labels]
    bench = Bench(run, replace(settings, label=labels[0]), settings.chain)
    if bench.chain.guidance == 0:
        raise UserError("at guidance=0 the network is told no class to morph between; 1 is without guidance")

    def between(cells: Tensor) -> Iterable[Step]:
        rows, w = cells // count, weights.to(bench.device)[cells % count]
        told = [bench.told(rows, end) for end in ends]
        first, second = (bench.weak(rows, end) for end in ends)
        weak = editing.mixed(first, second, w) if bench.guide is not None and first and second else first
        x_T = starting_noise(bench.chain.seed, rows, run.data.shape)
        return draw(editing.mixed(told[0], told[1], w), bench.process, x_T, rows, bench.chain, weak)

    hidden = bench.chain.guidance != 1 and bench.guide is None  # the network asked once more; a guide is another one
    calls = (2 + hidden) * bench.chain.calls(bench.process.schedule)
    made = bench.results(between, calls, progress, cells=count)
    used = bench.recorded("morph", {}, labels=ends, count=count)
    return Edited(made[:0], made, nrow=count, settings=used, calls=bench.calls)


def psnr(a: Tensor, b: Tensor) -> float:
    """The peak signal-to-noise ratio of two batches of images in [-1, 1], in decibels: 10 log10(2^2 / mean square)."""
    error = (a - b).double().square().mean().item()
    return 10 * math.log10(4 / error) if error > 0 else math.inf


def _plain(chain: Chain) -> Chain:
    return replace(chain.by("ddim").unguided(), eta=0.0)


def _weights(count: int) -> Tensor:
    if count < 2:
        raise UserError(f"count={count} must be at least 2, for both ends are among the images")
    return torch.linspace(0, 1, count)


def _check_refinements(refinements: int) -> None:
    if refinements < 0:
        raise UserError(f"refinements={refinements} must be at least 0")
