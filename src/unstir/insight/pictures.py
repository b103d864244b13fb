"""The pictures of a report, as data that the page carries within itself; among them the samples that were evaluated."""

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import SETTINGS, read_images
from unstir.generate.trajectories import trajectory
from unstir.insight.gather import real_images
from unstir.metrics.classifier import FILE, Classifier, classifier_for
from unstir.metrics.drawn import usual_chain
from unstir.metrics.evaluation import SHARES, Evaluation, pairs_file
from unstir.metrics.features import reference
from unstir.metrics.memorisation import nearest, nearest_features
from unstir.pictures import animation
from unstir.pictures.grid import corner, grid
from unstir.pixels import known, shown
from unstir.runs import build
from unstir.runs import timetable as of_run
from unstir.runs.files import decode, is_of
from unstir.runs.run import Run
from unstir.theory.process import Process

PAIRS = (
    "The samples closest to training images, and held-out images, which are no copies, each beside the training images "
    "nearest to it, by pixels and by features. The line gives the least distance divided by the mean one to the 50 "
    "nearest, which is small of copies, and the distances"
)
"""What the picture of the nearest training images shows (`unstir.metrics.memorisation.picture`)."""

WEBP_SIDE = 16_383
CORNER = 3  # so many rows and columns of the grid of each snapshot are shown
REAL_IMAGES = 64  # at most so many are shown
ANIMATED, STRIP_IMAGES = 16, 6  # images of the animation and of the strip
FORWARD_IMAGES, FORWARD_STAGES = 2, 11
CLASSES, OF_CLASS = 20, 6  # classes that are shown at most, and images of each
WORST, COLUMNS = 16, 8


@dataclass(frozen=True)
class Picture:
    """An image element: its source as a data URI, its width and height in pixels, and what it shows."""

    source: str
    width: int
    height: int
    shows: str


def encode(image: Image.Image, shows: str) -> Picture:
    """A picture as lossless WebP; as PNG where it is too large for WebP."""
    buffer, kind = io.BytesIO(), "webp" if max(image.size) <= WEBP_SIDE else "png"
    how: dict[str, Any] = {"lossless": True, "method": 4} if kind == "webp" else {"optimize": True}
    image.save(buffer, format=kind, **how)
    return Picture(_uri(kind, buffer.getvalue()), image.width, image.height, shows)


def from_file(path: Path, shows: str) -> Picture:
    """A picture file, an animation as it is and another as `encode` has it."""
    with _opened(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            return Picture(_uri(str(image.format).lower(), path.read_bytes()), image.width, image.height, shows)
        return encode(image, shows)


def _opened(path: Path) -> Image.Image:
    """A picture file of the run. Raises UserError where it is damaged."""
    try:
        with Image.open(path) as image:
            image.verify()  # decoding skips a PNG's checksums
        image = Image.open(path)
        image.load()
        return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError("", path, "is damaged", "remove it, and the page is made without it") from None


def pairs(of: Run | Store, evaluation: Evaluation) -> Picture | None:
    """The samples of an evaluation that lie nearest to training images, with these; None where it looked for none."""
    path = pairs_file(of, evaluation)
    shown = evaluation.memorisation and path.exists() and is_of(path, **evaluation.marks)
    return from_file(path, PAIRS) if shown else None


def snapshots(run: Run) -> list[tuple[str, Picture]]:
    """When each grid was drawn while training, and a corner of it, first to last, after that of their common noise."""
    named = {"noise": "the noise", of_run.START: "initial weights" if run.config.train.init else "untrained"}
    result = []
    names = run.labels.captions(run.labels.of(torch.arange(CORNER * run.config.grids.nrow))) or None
    for step, name in {-1: "noise", **of_run.all_snapshots(run)}.items():
        when, path = named.get(name, f"{run.images_seen(step):,} images"), of_run.drawn_grid(run, name)
        if path:
            result.append((when, _corner(run, path, None if step < 0 else names, f"samples: {when}", step >= 0)))
    return result


def newest_grid(run: Run) -> Picture | None:
    """The whole grid of the last snapshot; None before the first."""
    path = of_run.newest_grid(run)
    if path is None:
        return None
    step = {name: step for step, name in of_run.all_snapshots(run).items()}[path.stem]
    images = "images in its batches" if run.config.kind.has_teacher else "training images"
    when = f"after {run.images_seen(step):,} {images}" if step else "of the weights that it began with"
    return from_file(path, f"samples {when}, the first ones of a fixed seed: not chosen")


def real_grid(run: Run, store: Store | None) -> Picture | None:
    """Training images drawn at random, laid out as the run's grids; of the same classes where those know any."""
    if store is None or not store.count("train"):
        return None
    count = min(run.config.grids.num, REAL_IMAGES, store.count("train"))
    images = real_images(store, run.labels.of(torch.arange(count)), count, "report real", run.config.grids.channels)
    return encode(grid(images, run.config.grids.nrow), "training images, drawn at random")


def some(store: Store, images: Tensor, shows: str) -> Picture:
    """Some images in units of a store, drawn at random."""
    chosen = randomness.permutation(0, "report real", 0, len(images))[:REAL_IMAGES]
    return encode(grid(store.scale.shown(images[chosen]), COLUMNS), shows)


def _corner(run: Run, path: Path, names: Sequence[str] | None, shows: str, drawn: bool) -> Picture:
    """The first rows and columns of a grid of the run in a file, which may be of another grids.num than now.

    Where it was ``drawn``, a condition that is an image stands beside each.
    """
    with _opened(path) as image:
        channels, height, width = run.data.shape
        beside = drawn and run.conditions is not None and run.conditions.is_image
        tile = channels, height, width * (1 + beside)
        return encode(corner(image, tile, run.config.grids.nrow, names, CORNER), shows)


def forward(run: Run, store: Store | None) -> Picture | None:
    """Real images of the training split dissolving: a row per image, a column per time."""
    if store is None or not store.count("train"):
        return None
    schedule = build.schedule(run.config.diffusion)
    times = [round(i * schedule.T / (FORWARD_STAGES - 1)) for i in range(FORWARD_STAGES)]
    x_0, _ = known(store.scale.to_model(store.images("train")[:FORWARD_IMAGES]), store.scale)
    eps = randomness.normal(randomness.Key(0, "report forward", 0, torch.arange(len(x_0))), tuple(x_0.shape[1:]))
    process = Process(schedule)
    columns = [shown(process.diffuse(x_0, t, eps) if t else x_0, run.config.grids.channels) for t in times]
    sheet = grid(torch.stack(columns, 1).flatten(0, 1), nrow=len(times))
    return encode(sheet, f"images of the data at t = {', '.join(map(str, times))}")


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples, uint8 [N, C, H, W], and the classes that they were asked to show, int64 [N], None without any."""

    images: Tensor
    asked: Tensor | None


class FromNoise(NamedTuple):
    """The strip of stages of some images, the animation, and the images themselves."""

    strip: Picture
    animation: Picture
    samples: Drawn


def from_noise(run: Run) -> FromNoise | None:
    """The newest model's first images, and how they came from noise; None without weights."""
    if not run.saved_steps():
        return None
    model, chain = run.model(run.newest_step()), usual_chain(run)
    frames = trajectory(model, Job(num=ANIMATED, chain=chain), ANIMATED)
    first = [replace(frame, x=frame.x[:STRIP_IMAGES], x0=frame.x0[:STRIP_IMAGES]) for frame in frames]
    by = f"{chain.sampler}, {chain.cost(model.process.schedule)}"
    shows = f"stages of {by}: the noisy images x_t above, below the network's estimates of the clean image"
    strip = encode(animation.strip(first), shows)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trajectory.webp"
        animation.save_animation(frames, file, nrow=4)
        moving = from_file(file, "sampling as an animation, from noise to images")
    return FromNoise(strip, moving, Drawn(frames[-1].x, model.labels.of(torch.arange(ANIMATED))))


@dataclass(frozen=True)
class _OfClass:
    name: str
    real: Picture
    samples: Picture | None


@dataclass(frozen=True)
class Worst:
    """The samples that lie farthest from all training images, the same of held-out images, and how they were chosen."""

    samples: Picture
    held_out: Picture | None
    how: str


def drawn_for(run: Run, evaluation: Evaluation) -> Drawn | None:
    """The samples of an evaluation, all its seeds together, from RUN/generated; None where they are not all there."""
    num, images, asked = evaluation.protocol["num"], {}, None
    for file in (run.path / "generated").glob(f"*/{SETTINGS}"):
        try:
            settings = decode(file.read_bytes())
            if not _is_of(settings, evaluation):
                continue
            images[settings["chain"]["seed"]] = read_images(file.parent, num)
        except (UserError, OSError, ValueError, KeyError):  # half drawn, or not ours
            continue
        asked = run.labels.of(torch.arange(num), settings["label"], tuple(settings.get("shares", ())))
    if len(images) != evaluation.protocol["seeds"]:
        return None
    together = torch.cat([images[seed] for seed in sorted(images)])
    return Drawn(together, None if asked is None else asked.repeat(len(images)))


def _is_of(settings: dict[str, Any], evaluation: Evaluation) -> bool:
    how, chain = evaluation.protocol, settings["chain"]
    alike = all(how[key] == value for key, value in chain.items() if key not in ("steps", "seed"))
    label = SHARES if settings.get("shares") else settings["label"]
    asked = (how["calls"], how["dtype"], how["label"], how.get("condition"), evaluation.step)
    known = (settings["calls"], settings["dtype"], label, *(settings.get(key) for key in ("condition", "step")))
    alike &= all(settings.get(key) == mark for key, mark in evaluation.marks.items())
    return alike and asked == known and chain["seed"] in range(how["seed"], how["seed"] + how["seeds"])


def classifier_of(store: Store, evaluation: Evaluation) -> Classifier | None:
    """The classifier that an evaluation was made with, if the store still has it."""
    digest = evaluation.protocol["networks"].get("classifier")
    result = classifier_for(store) if digest is not None and (store.path / FILE).exists() else None
    return result if result is not None and result.hash == digest else None


def by_class(store: Store, drawn: Drawn | None, classifier: Classifier | None) -> list[_OfClass]:
    """Real images and samples of each of the first classes: asked for, or else what the classifier predicts."""
    real = store.labels("train")
    if real is None or len(store.classes) < 2:
        return []
    asked = None if drawn is None else drawn.asked
    if drawn is not None and asked is None and classifier is not None:
        asked = classifier.classes_of(drawn.images)
    result = []
    for index, name in enumerate(store.classes[:CLASSES]):
        own = None if drawn is None or asked is None else drawn.images[asked == index][:OF_CLASS]
        images = store.images("train")[torch.nonzero(real == index)[:OF_CLASS, 0]]
        if len(images):
            real_row = encode(grid(store.scale.shown(images), OF_CLASS), f"real images of class {name}")
            shown = own is not None and len(own) and encode(grid(own, OF_CLASS), f"samples of class {name}")
            result.append(_OfClass(name, real_row, shown or None))
    return result


def worst(flip: bool, store: Store, drawn: Drawn, classifier: Classifier | None) -> Worst:
    """The samples farthest from their nearest training image, or with ``flip`` its mirror image."""
    held_out = store.images("held_out")
    if classifier is not None:
        train, by = reference(store, "train", classifier).features, "in the classifier's features"
    else:
        train, by = store.images("train"), "by pixels, which favours strong contrast"

    def far(images: Tensor) -> Tensor:
        if classifier is None:
            return nearest(images, train, flip=flip).distance[:, 0]
        views = [images, images.flip(-1)] if flip else [images]  # a run that mirrors may draw either
        item = [nearest_features(classifier.features(view), train).distance[:, 0] for view in views]
        return torch.stack(item).min(0).values

    shown, span = _farthest(drawn.images, far(drawn.images), "the worst samples")
    how = f"The {min(WORST, len(drawn.images))} of {len(drawn.images):,} samples that lie farthest from their nearest "
    how += f"of {len(train):,} training images {by}: {span}."
    if not len(held_out):
        return Worst(shown, None, how)
    real, span = _farthest(held_out, far(held_out), "the held-out images that lie farthest from the training images")
    how += f" Next to them the farthest of {len(held_out):,} held-out images by the same measure: {span}."
    return Worst(shown, real, how)


def _farthest(images: Tensor, far: Tensor, shows: str) -> tuple[Picture, str]:
    order = far.argsort(descending=True, stable=True)[:WORST]
    span = f"distances {far[order[0]].item():.3g} to {far[order[-1]].item():.3g}"
    return encode(grid(images[order], COLUMNS), shows), span


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
