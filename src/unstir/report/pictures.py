"""The pictures of a report, as data that the page carries within itself."""

import base64
import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unstir import randomness
from unstir.data import Store
from unstir.errors import UserError
from unstir.generate.drawing import Job, trajectory
from unstir.pictures import animation
from unstir.pictures.grid import GAP, grid
from unstir.pixels import from_uint8, to_uint8
from unstir.randomness import Key
from unstir.runs import build
from unstir.runs import timetable as of_run
from unstir.runs.model import Model
from unstir.runs.run import Run
from unstir.theory.process import Process

WEBP_SIDE = 16_383
CORNER = 3  # so many rows and columns of the grid of each snapshot are shown
REAL_IMAGES = 64  # at most so many are shown with the samples
STAGES = 10
STRIP_IMAGES = 6
ANIMATED = 16
FORWARD_IMAGES = 2
FORWARD_STAGES = 11


@dataclass(frozen=True)
class Picture:
    """An image element: its source as a data URI, its width and height in pixels, and what it shows."""

    source: str
    width: int
    height: int
    shows: str


def encode(image: Image.Image, shows: str) -> Picture:
    """A picture as lossless WebP, a third smaller than PNG; as PNG where it is too large for WebP."""
    buffer, kind = io.BytesIO(), "webp" if max(image.size) <= WEBP_SIDE else "png"
    how: dict[str, Any] = {"lossless": True, "method": 4} if kind == "webp" else {"optimize": True}
    image.save(buffer, format=kind, **how)
    return Picture(_uri(kind, buffer.getvalue()), image.width, image.height, shows)


def from_file(path: Path, shows: str) -> Picture:
    """A picture file as it is, re-encoded where that is smaller."""
    with _opened(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            kind = (image.format or "webp").lower()
            return Picture(_uri(kind, path.read_bytes()), image.width, image.height, shows)
        return encode(image.copy(), shows)


def _opened(path: Path) -> Image.Image:
    """A picture file of the run. Raises UserError where it is damaged: a page shows no wrong picture."""
    try:
        with Image.open(path) as image:
            image.verify()  # decoding skips a PNG's checksums
        image = Image.open(path)
        image.load()
        return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError(f"{path} is damaged; remove it, and the page is made without it") from None


def snapshots(run: Run) -> list[tuple[str, Picture]]:
    """When each grid was drawn while training, and a corner of it, first to last, after that of their common noise."""
    named = {"noise": "the noise", of_run.START: "untrained"}
    files = [
        (named.get(name, f"{step * run.config.train.batch_size:,} images"), of_run.grid_file(run, name))
        for step, name in {-1: "noise", **of_run.snapshots(run)}.items()
    ]
    return [(when, _corner(run, path, f"samples: {when}")) for when, path in files if path.exists()]


def newest_grid(run: Run) -> Picture | None:
    """The whole grid of the last snapshot; None before the first."""
    path = of_run.newest_grid(run)
    return None if path is None else from_file(path, "samples, the first ones of a fixed seed")


def real_grid(run: Run, store: Store) -> Picture:
    """Training images drawn at random, laid out as the run's grids; of the same classes where those know any."""
    count, labels = min(run.config.grids.num, REAL_IMAGES, store.count("train")), store.labels("train")
    order = randomness.permutation(0, "report real", 0, store.count("train"))
    if labels is not None and (asked := run.labels.of(torch.arange(count))) is not None:
        classes = run.labels.count
        of_class = [order[labels[order] == index] for index in range(classes)]
        own = [(i // classes, of_class[label]) for i, label in enumerate(asked.tolist())]
        chosen = [int(each[place % len(each)]) for place, each in own if len(each)]
        order = torch.tensor(chosen, dtype=torch.int64)
    images = store.images("train")[order[:count]]
    return encode(grid(images, run.config.grids.nrow), "training images, drawn at random")


def _corner(run: Run, path: Path, shows: str) -> Picture:
    """The first rows and columns of a grid of the run in a file."""
    cfg = run.config.grids
    columns, rows = min(cfg.nrow, cfg.num), -(-cfg.num // cfg.nrow)
    with _opened(path) as image:
        width = (image.width - GAP) * min(CORNER, columns) // columns + GAP
        height = (image.height - GAP) * min(CORNER, rows) // rows + GAP
        return encode(image.crop((0, 0, width, height)), shows)


def forward(run: Run, store: Store) -> tuple[Picture, list[int]]:
    """Real images of the training split dissolving: a row per image, a column per time; and the times."""
    schedule = build.schedule(run.config.diffusion)
    times = [round(i * schedule.T / (FORWARD_STAGES - 1)) for i in range(FORWARD_STAGES)]
    x_0 = from_uint8(store.images("train")[: min(FORWARD_IMAGES, store.count("train"))])
    eps = randomness.normal(Key(0, "report forward", 0, torch.arange(len(x_0))), tuple(x_0.shape[1:]))
    process = Process(schedule)
    columns = [to_uint8(process.diffuse(x_0, t, eps) if t else x_0) for t in times]
    tiles = torch.stack(columns, 1).flatten(0, 1)
    return encode(grid(tiles, nrow=len(times)), "real images of the data at rising noise"), times


def strip_and_animation(model: Model, job: Job) -> tuple[Picture, Picture]:
    """The strip of stages and the animation of a job's first images, from noise to image."""
    frames = trajectory(model, job, ANIMATED)
    first = [replace(frame, x=frame.x[:STRIP_IMAGES], x0=frame.x0[:STRIP_IMAGES]) for frame in frames]
    strip = encode(animation.strip(first, STAGES), "stages of sampling, the noisy images above, their estimates below")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trajectory.webp"
        animation.save_animation(frames, file, nrow=4)
        return strip, from_file(file, "sampling as an animation, from noise to images")


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
