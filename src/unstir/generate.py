"""Many images from a trained run: exactly as many as asked, image i the same in whatever batch and job it is made."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoiser, Labelled, labelled
from unstir.diffusion.draw import Chain, draw, starting_noise
from unstir.diffusion.samplers import Step
from unstir.errors import UserError
from unstir.pictures.grid import grid, to_picture, to_uint8
from unstir.pictures.png import is_whole, read
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint, content_hash
from unstir.runs.files import PARTIAL, make_folder, replacing, write_text
from unstir.runs.guide import Guide, check_guide, weaker
from unstir.runs.run import Run, weights_of

GRID_IMAGES = 64
MOST_IMAGES = 100_000_000
SETTINGS = "settings.json"


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
        rest = _plain(replace(self, num=0, batch_size=0, device=""))
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:6]
        label = "" if self.label is None else f"-label{self.label}"
        return f"step{self.step}-{self.chain.sampler}{self.chain.steps}{label}-seed{self.chain.seed}-{digest}"


def _plain(job: Job) -> dict[str, Any]:
    """The settings of a job as JSON has them, without shares where there are none."""
    settings = dataclasses.asdict(job)
    shares = list(settings.pop("shares"))
    return {**settings, "shares": shares} if shares else settings


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
    checkpoint again, ``denoisers`` building the network too; ``on_step()`` hears of each step of a batch. Raises
    UserError for a label the network does not know, for weights that were not saved, or for a chain that does not
    exist.
    """
    pair = denoisers or load_denoisers(run, job, loaded)
    for begin in range(first, job.num, job.batch_size):
        yield _batch(run, job, pair, begin, on_step)


def _batch(
    run: Run, job: Job, denoisers: Denoisers, begin: int, on_step: Callable[[], None] | None
) -> tuple[range, Tensor]:
    """(indices, images) of the batch that begins at an image's number; see `generate`."""
    indices = range(begin, min(begin + job.batch_size, job.num))
    computed = range(begin, begin + min(job.batch_size, job.num))
    x = None
    for step in _steps(*denoisers, run, job, computed):
        x = step.x
        if on_step is not None:
            on_step()
    assert x is not None
    return indices, x[: len(indices)]


def steps(run: Run, job: Job, loaded: Checkpoint | None = None) -> Iterator[Step]:
    """The steps of images 0..num-1 in one batch, to be looked at on the way; arguments and errors as `generate`."""
    return _steps(*load_denoisers(run, job, loaded), run, job, range(job.num))


def load_denoisers(run: Run, job: Job, loaded: Checkpoint | None = None) -> Denoisers:
    """The denoiser of a job, and its guide where it has one. Raises UserError as `generate`."""
    _check(run, job)
    settings: dict[str, Any] = {"ema": job.ema, "device": job.device, "dtype": job.dtype}
    denoiser = run.denoiser(step=job.step, loaded=loaded, **settings)
    return denoiser, None if job.guide is None else weaker(job.guide, run, **settings)


def _check(run: Run, job: Job) -> None:
    for name, value in (("num", job.num), ("batch_size", job.batch_size)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    if job.num > MOST_IMAGES:
        raise UserError(f"num={job.num} is more than {MOST_IMAGES}, the most a folder is made for; use several seeds")
    classes = run.config.model.num_classes
    if job.label is not None and not classes:
        raise UserError(f"label={job.label} was given, but this network knows no classes; leave it out")
    if job.label is not None and not 0 <= job.label < classes:
        raise UserError(f"label={job.label} is outside 0..{classes - 1}, the classes of this run")
    if job.chain.variance == "learned" and not run.config.diffusion.learned_variance:
        raise UserError('variance="learned" was asked of a network that has not learned it; use auto, small or large')
    if job.shares and (len(job.shares) != classes or min(job.shares) < 0 or sum(job.shares) < 1):
        raise UserError(f"shares={job.shares} must be {classes} numbers of images, one a class, and not all 0")
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
    to the shares within an image or two, however many are drawn.
    """
    if job.label is not None:
        return torch.full_like(indices, job.label)
    if not job.shares:
        return run.labels_of(indices)
    edges = torch.tensor(job.shares, device=indices.device).cumsum(0).float()
    places = ((indices.float() + 0.5) * ((5**0.5 - 1) / 2)).frac() * edges[-1]
    return torch.searchsorted(edges, places, right=True).clamp(max=len(edges) - 1)


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


def save_images(
    run: Run,
    job: Job,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    loaded: Checkpoint | None = None,
) -> None:
    """Write the images of a job as out/000000.png, ..., with noise.png and grid.png of the first 64.

    A job that is run again computes only the batches of which an image is missing, in the batch size that it began
    with. ``progress(done, total)`` counts the steps of these. Raises UserError where the folder holds something else or
    more images, and as `generate` does, before anything is written.
    """
    _check(run, job)
    loaded = loaded or run.load(job.step)
    weights_of(loaded, job.ema)
    job = _claim(run, out, job, loaded)
    begins = _missing(out, job, run.data.shape)
    total = len(begins) * (len(job.chain.times(build.schedule(run.config.diffusion))) - 1)
    done = itertools.count(1)

    def on_step() -> None:
        if progress is not None:
            progress(next(done), total)

    denoisers = load_denoisers(run, job, loaded)
    for begin in begins:
        indices, images = _batch(run, job, denoisers, begin, on_step)
        for index, image in zip(indices, to_uint8(images), strict=True):
            with replacing(image_path(out, index), durable=False) as partial:
                to_picture(image).save(partial, format="png")
    shown = torch.arange(min(job.num, GRID_IMAGES))
    noise = to_uint8(starting_noise(job.chain.seed, shown, run.data.shape))
    images = torch.stack([read(image_path(out, int(index))) for index in shown])
    for name, pictures in (("noise.png", noise), ("grid.png", images)):
        with replacing(out / name) as partial:
            grid(pictures, run.config.grids.nrow).save(partial, format="png")


def image_path(out: Path, index: int) -> Path:
    """The file of an image number."""
    return out / f"{index:06d}.png"


def _missing(out: Path, job: Job, shape: tuple[int, int, int]) -> list[int]:
    """Where the batches begin of which an image is missing; what a killed job left half written is removed.

    A file that is no whole PNG of ``shape`` (C, H, W), as a power cut can leave it, is no image. Raises UserError where
    there are more images.
    """
    present = set[int]()
    with os.scandir(out) as entries:
        for entry in entries:
            stem, _, suffix = entry.name.rpartition(".")
            if entry.name.startswith(".") and entry.name.endswith(PARTIAL):
                Path(entry.path).unlink(missing_ok=True)
            elif suffix == "png" and stem.isdecimal() and entry.name == image_path(out, int(stem)).name:
                present.add(int(stem))
    if max(present, default=-1) >= job.num:
        raise UserError(
            f"{out} holds {len(present)} of these images, more than num={job.num}; name another folder with --out"
        )
    whole = {index for index in present if is_whole(image_path(out, index), shape)}
    begins = range(0, job.num, job.batch_size)
    return [b for b in begins if not whole.issuperset(range(b, min(b + job.batch_size, job.num)))]


def read_images(out: Path, num: int) -> Tensor:
    """The first ``num`` images of a job's folder, uint8 [num, C, H, W]. Raises OSError where one is not there."""
    return torch.stack([read(image_path(out, index)) for index in range(num)])


def _claim(run: Run, out: Path, job: Job, loaded: Checkpoint) -> Job:
    """Make the folder this job's, and return the job with the batch size and arithmetic that the folder was begun with.

    Raises UserError where the folder is another job's: other settings, or other weights under the same settings.
    """
    file = out / SETTINGS
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder with --out")
    try:
        make_folder(out)
        present = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        foreign = present is None and any(not path.name.startswith(".") for path in out.iterdir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{SETTINGS} is broken"
        raise UserError(f"cannot use the folder {out}: {reason}; name another folder with --out") from None
    if present is None:
        if foreign:
            raise UserError(f"{out} is not empty and was not made by unstir sample; name another folder with --out")
        write_text(file, json.dumps(settings_of(run, job, loaded), indent=1) + "\n")
        return job
    wanted = settings_of(run, job, loaded)
    if not isinstance(present, dict) or present.keys() != wanted.keys():
        raise UserError(f"{file} was not written by this version of unstir sample; name another folder with --out")
    free = {"batch_size", "threads", *(("dtype",) if job.dtype == "auto" else ())}  # taken from the job as it began
    if differing := [key for key in wanted if present[key] != wanted[key] and key not in free]:
        raise UserError(
            f"{out} holds images made with other settings ({', '.join(differing)}); name another folder with --out"
        )
    torch.set_num_threads(present["threads"])
    return replace(job, batch_size=present["batch_size"], dtype=present["dtype"])


def settings_of(run: Run, job: Job, loaded: Checkpoint) -> dict[str, Any]:
    """What decides the pixels of an image: the job but for its length, the weights by their hash, and the machine."""
    device = build.device(job.device)
    settings = _plain(replace(job, device=device.type, dtype=build.dtype_name(job.dtype, device)))
    del settings["num"]  # a longer job of the same settings continues a shorter one
    weights = weights_hash(run, job, loaded)
    return {**settings, "weights": weights, "torch": torch.__version__, "threads": torch.get_num_threads()}


def weights_hash(run: Run, job: Job, loaded: Checkpoint) -> str:
    """The SHA-256 (hex) of the weights that a job samples from, and after a space that of its guide's."""
    used = [loaded] if job.guide is None else [loaded, job.guide.load(run)]
    return " ".join(content_hash(weights_of(found, job.ema)) for found in used)
