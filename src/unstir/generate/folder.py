"""The images of a job as files: exactly as many as asked, whole after a kill at any time, with their settings."""

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from unstir.chain import compared
from unstir.data.disk import file_sha256, held, read_bytes
from unstir.diffusion.draw import starting_noise
from unstir.errors import UserError
from unstir.generate import arrays
from unstir.generate.drawing import Job, batch, check
from unstir.group import Alone
from unstir.pictures.grid import grid, is_whole, named_grid, read, titled, to_picture, with_words
from unstir.progress import counter, counting
from unstir.runs import sidecar
from unstir.runs.build import check_compile
from unstir.runs.checkpoint import warn
from unstir.runs.files import decode, encode, is_of, made_by, make_folder, remove_partials, staging, write_text, writing
from unstir.runs.model import Model

logger = logging.getLogger(__name__)

GRID_IMAGES = 64
SETTINGS = "settings.json"
CLASSES = "classes"  # in that file, the names of all classes of the network, which decide no pixel
HASH = "array"  # in that file, the SHA-256 of images.npy
FORMATS = "png", "npy"
MOST_SCALE = 64


def scaled(model: Model, scale: int | None) -> Model:
    """The model whose pictures are enlarged by a whole ``scale``, None for its own. UserError outside 1..64."""
    if scale is not None and not 1 <= scale <= MOST_SCALE:
        raise UserError("scale", scale, f"is outside 1..{MOST_SCALE}", {"scale": None})
    return replace(model, scale=scale) if scale else model


def save_images(
    model: Model, job: Job, out: Path, group: Alone = Alone(), format: str | None = None
) -> tuple[Model, Job]:
    """Write the images of a job as out/000000.png, ..., with noise.png and grid.png of the first 64.

    As ``format`` "npy" they are out/images.npy, in units of the data; None is that where a PNG file cannot hold them.
    A job that is run again computes only the batches of which an image is missing, in the batch size, compiled or not
    and, for ``dtype`` "auto", in the arithmetic that it began with; the model and the job as it was done are returned.
    The processes of a ``group`` share the missing batches, as the first one says. Raises UserError before anything is
    written: where the folder holds something else or more images, as `sample_batches` does, and where the processes
    were asked for different images or do not see one folder.
    """
    check(model, job)
    format = _form(model, format)
    alike = settings_of(model, job) | {"format": format}
    for name in ("threads", "batch_size", "compile"):  # which are those that the folder began with
        del alike[name]
    group.agree(alike, "start all with the same options and weights")
    todo: dict[str, Any] = group.of_first(_begun(model, job, out, format) if group.is_first else {})
    seen = group.of_all((out / SETTINGS).exists())  # before one may end in an error, and take the folder away
    if not all(seen):
        blind = Alone(seen.index(False), group.size)
        raise UserError("out", out, f"is not seen by {blind}", "name a folder on a disk that all processes share")
    job = replace(job, num=todo["num"], batch_size=todo["batch_size"])
    if todo["dtype"] != model.arithmetic:
        model = model.unloaded(dtype=todo["dtype"])
    if todo["compile"] != model.compile:
        logger.info(f"{out} was begun with compile={todo['compile']} and goes on so")
        check_compile(todo["compile"], model.device, "name another folder: these images were begun compiled")
        model = model.unloaded(compile=todo["compile"])
    begins = todo["begins"][group.rank :: group.size]
    total, shown = len(begins) * job.chain.cost(model.process.schedule).steps, counting("sampling", "steps")
    threads, emptied = computing_with(todo["threads"]), _without_images_no_job(out, todo["own"])
    with shown as count, threads, emptied, staging(out, "images") as partial:
        on_step = counter(count, total)
        for begin in begins:
            images = model.to_units(batch(model, job, begin, on_step)[1])
            if format == "npy":
                arrays.save(out, begin, images, partial, model)
            for index, image in enumerate(images if format == "png" else (), start=begin):
                _save(image_path(out, index), to_picture(image), partial, model)
        group.of_all(None)
        if group.is_first:
            _finish(model, job, out, partial, format)
    return model, job


def _form(model: Model, format: str | None) -> str:
    if format not in (None, *FORMATS):
        raise UserError("format", format, f"must be one of {', '.join(FORMATS)}")
    if format == "png" and not model.in_pixels:
        raise UserError("format", format, "holds 8-bit images of 1 or 3 channels", {"format": "npy"})
    return format or ("png" if model.in_pixels else "npy")


def _save(path: Path, picture: Image, partial: Path, model: Model) -> None:
    """Save a picture that can be drawn again: whole or absent after a kill, perhaps lost in a power cut."""
    with writing(path):
        picture.save(partial / path.name, format="png", pnginfo=with_words(**model.marks))
        (partial / path.name).replace(path)


def _begun(model: Model, job: Job, out: Path, format: str) -> dict[str, Any]:
    """How the job in a folder is done, where missing batches begin, and whether a job made the folder."""
    names = {CLASSES: list(model.labels.names)} if model.labels.count else {}
    record = {**made_by("unstir sample"), "cost": model.cost(job.chain), **names}
    goes_on, own = (out / SETTINGS).exists(), not out.exists()
    _check_free(out)
    with nullcontext() if goes_on else _without_images_no_job(out, own):
        begun = _claim(out, record, settings_of(model, job) | {"format": format}, any_dtype=model.dtype == "auto")
    begins = _missing(out, replace(job, batch_size=begun["batch_size"]), model, format)
    return {**begun, "num": job.num, "begins": begins, "own": goes_on or own}


def _finish(model: Model, job: Job, out: Path, partial: Path, format: str) -> None:
    if format == "npy":
        old = _array(out)
        if old is None or len(old) < job.num:
            array = {HASH: arrays.join(out, job, model, old)}
            write_text(out / SETTINGS, encode(_read(out) | array, indent=1) + "\n")
        arrays.forget_batches(out)
    shown = torch.arange(min(job.num, GRID_IMAGES))
    noise = model.pixels(starting_noise(job.chain.seed, shown, model.shape))
    images = model.data.scale.shown(read_images(out, len(shown)), model.channels)
    _save(out / "noise.png", grid(noise, model.nrow, model.scale), partial, model)
    _save(out / "grid.png", grid_of(model, job, images), partial, model)


def drawn_classes(model: Model, job: Job, num: int) -> list[str]:
    """The names for pictures of the classes of the first ``num`` images: one where all are of one, else one each."""
    shown = torch.arange(min(num, job.num) if job.label is None else 1)
    return model.labels.captions(model.labels.of(shown, job.label, job.shares))


def grid_of(model: Model, job: Job, images: Tensor) -> Image:
    """The first images of a job, uint8 [N, C, H, W], as one picture, with the names of their classes."""
    images = model.beside(images, torch.arange(len(images)), job.condition)
    names, nrow = drawn_classes(model, job, len(images)), model.nrow
    if job.label is None and names:
        return named_grid(images, nrow, names, model.scale)
    picture = grid(images, nrow, model.scale)
    return titled(picture, names[0]) if names else picture


@contextmanager
def _without_images_no_job(out: Path, own: bool) -> Iterator[None]:
    """Where a job fails before any image was made, leave no settings, and no folder of its ``own``."""
    try:
        yield
    except Exception:
        with suppress(OSError):  # another process has done it, or has a staging folder there
            if {path.name for path in out.iterdir()} <= {SETTINGS}:
                (out / SETTINGS).unlink(missing_ok=True)
                if own:
                    out.rmdir()
        raise


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Torch with so many threads in this block: the last bits of an image depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def settings_in(out: Path) -> dict[str, Any]:
    """The settings of a job's folder, as `settings_of` has them. Raises UserError where they are broken."""
    return {key: value for key, value in _read(out).items() if key not in (*sidecar.RECORD, CLASSES, HASH)}


def classes_in(out: Path) -> tuple[str, ...]:
    """The names of all classes in the settings of a job's folder, if any. UserError as `settings_in`."""
    return tuple(_read(out).get(CLASSES, ()))


def _read(out: Path) -> dict[str, Any]:
    try:
        return decode(read_bytes(out / SETTINGS))
    except ValueError:
        raise UserError("", out / SETTINGS, "is broken", "name another folder") from None


def image_path(out: Path, index: int) -> Path:
    """The file of an image number."""
    return out / f"{index:06d}.png"


def _missing(out: Path, job: Job, model: Model, format: str) -> list[int]:
    """Where batches begin that lack an image, or have a broken one or of other weights. UserError for more images."""
    present, whole = _in_arrays(out, job, model) if format == "npy" else _in_files(out, model)
    if (last := max(present, default=-1)) >= job.num:
        more = {"num": last + 1} if last < len(present) else f"remove {image_path(out, last).name}"
        holds = f"is less than {out} holds, {len(present)} of these images"
        raise UserError("num", job.num, holds, (more, "name another folder"))
    begins = range(0, job.num, job.batch_size)
    return [b for b in begins if not whole.issuperset(range(b, min(b + job.batch_size, job.num)))]


def _in_files(out: Path, model: Model) -> tuple[set[int], set[int]]:
    """The numbers of the images that are files, and of those that are whole and of the model's weights."""
    numbered = (path for path in out.glob("*.png") if path.stem.isdecimal())
    paths = {int(path.stem): path for path in numbered if path == image_path(out, int(path.stem))}
    whole = {i for i, path in paths.items() if is_whole(path, model.shape) and is_of(path, **model.marks)}
    return set(paths), whole


def _in_arrays(out: Path, job: Job, model: Model) -> tuple[set[int], set[int]]:
    """The numbers of the images in the array, and of these and those in whole batches."""
    array = _array(out)
    present = set(range(0 if array is None else len(array)))
    parts = (part for part, images in arrays.batches(out, job, model).items() if images is not None)
    return present, present.union(*parts)


def _array(out: Path) -> NDArray[np.generic] | None:
    """The array of a job's folder; None without one, and for another than the settings name."""
    file = out / arrays.ARRAY
    if not file.exists():
        return None
    if not (out / SETTINGS).exists() or file_sha256(file) != _read(out).get(HASH):
        warn(f"{file} is not the array that {SETTINGS} names, and is left out")
        return None
    return arrays.opened(file)


def drawn_in(out: Path) -> int:
    """How many images a job's folder has, without a gap."""
    if (array := _array(out)) is not None:
        return len(array)
    return next(index for index in itertools.count() if not image_path(out, index).exists())


def read_images(out: Path, num: int) -> Tensor:
    """The first ``num`` images of a job's folder, uint8 [num, C, H, W], or float32 in units of the data.

    Raises OSError where one is not there, UserError where one is of other weights than settings.json says.
    """
    if (array := _array(out)) is not None:
        if num > len(array):
            raise UserError("num", num, f"is more than {out} holds", {"num": len(array)})
        return torch.from_numpy(array[:num].copy())
    settings, paths = _read(out), [image_path(out, index) for index in range(num)]
    marks = {key: settings.get(key) for key in ("run", "weights")}
    if others := [path for path in paths if not is_of(path, **marks)]:
        of_others = f"was not drawn by the run and with the weights that {SETTINGS} names"
        refused = UserError("", others[0], of_others, "remove it")
        warn(str(refused))  # the page leaves such images out
        raise refused
    return torch.stack([read(path) for path in paths])


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError("out", out, "is a file", "name a folder")
    others = out.exists() and not all(path.name.startswith(".") for path in out.iterdir())
    if others and not (out / SETTINGS).exists():
        raise UserError("out", out, "is not empty and was not made by unstir sample", "name another folder")


def _claim(out: Path, said: dict[str, Any], wanted: dict[str, Any], any_dtype: bool) -> dict[str, Any]:
    """Make the folder this job's, and say how it was begun; UserError where it is of other settings or weights."""
    file = out / SETTINGS
    make_folder(out)
    with held(out / ".lock"):  # of several processes that begin at once, the others do as the first
        remove_partials(out, SETTINGS)
        if not file.exists():
            arrays.forget_batches(out)
            write_text(file, encode({**said, **wanted}, indent=1) + "\n")
    present = settings_in(out)
    if present.keys() != wanted.keys():
        raise UserError("", file, "was not written by this version of unstir sample", "name another folder")
    # as the job began; the guide's weights have their hash, wherever it lies
    free = {"batch_size", "threads", "compile", "guide", *(["dtype"] if any_dtype else [])}
    compared_keys = [key for key in wanted if key not in free]
    if differing := [words for key in compared_keys for words in _differences(key, present[key], wanted[key])]:
        other = f"holds images made with other settings ({', '.join(differing)})"
        raise UserError("out", out, other, "name another folder")
    return {key: present[key] for key in ("dtype", "batch_size", "threads", "compile")}


def _differences(key: str, there: Any, asked: Any) -> list[str]:
    """How two settings differ, in words: none, one, or one for each key of a section."""
    if isinstance(there, dict) and isinstance(asked, dict):
        common = {name: (there[name], asked[name]) for name in there if name in asked}
        pairs = compared(there, asked) if key == "chain" else common
        words = [text for name, (was, now) in pairs.items() for text in _differences(f"{key}.{name}", was, now)]
        return words or [f"{key} is of another kind there"] * (key != "chain" and there != asked)
    if key == "weights":
        there, asked = (" ".join(digest[:12] for digest in str(hashes).split()) for hashes in (there, asked))
    return [] if there == asked else [f"{key} is {there} there, {asked} was asked"]


def settings_of(model: Model, job: Job) -> dict[str, Any]:
    """What decides the pixels of an image: the job without its length, network, process, weights, and machine."""
    settings = _asked(model, job)
    del settings["num"]  # a longer job of the same settings continues a shorter one
    settings["class"] = None if job.label is None else model.labels.names[job.label]
    settings["calls"] = job.chain.calls(model.process.schedule)
    return {**settings, **model.provenance()}


def name_of(model: Model, job: Job) -> str:
    """The name of a folder for all images of these settings, whatever their number and batches."""
    settings, known = _asked(model, replace(job, num=0, batch_size=0)), model.provenance()
    settings |= {key: known[key] for key in ("step", "ema", "guide")}
    settings |= {} if model.engine == "torch" else {"engine": model.engine}
    digest = hashlib.sha256(json.dumps({**settings, "dtype": model.dtype}, sort_keys=True).encode())
    label = "" if job.label is None else f"-label{job.label}"
    chain = f"{job.chain.sampler.replace(':', '-')}{job.chain.steps}"
    return f"step{model.step}-{chain}{label}-seed{job.chain.seed}-{digest.hexdigest()[:6]}"


def _asked(model: Model, job: Job) -> dict[str, Any]:
    """A job as JSON has it, without what has no effect; of conditions their hash."""
    settings = dataclasses.asdict(replace(job, condition=None)) | {"chain": job.chain.in_effect()}
    shares, _ = list(settings.pop("shares")), settings.pop("condition")
    conditions = {} if model.conditions is None else {"condition": model.conditions.hash(job.condition)}
    return {**settings, **conditions, **({"shares": shares} if shares else {})}
