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
from unstir.generate import Job, way
from unstir.pictures import animation
from unstir.pictures.contact import contact
from unstir.pictures.grid import grid, to_uint8
from unstir.randomness import Key
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run
from unstir.theory.process import Process
from unstir.train.milestones import START, milestones

WEBP_SIDE = 16_383
CLASSES = 20  # as many have a row of the contact sheet
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


@dataclass(frozen=True)
class Moment:
    """A grid drawn on the way: its picture, and when in training it was drawn."""

    picture: Picture
    when: str
    images: int


def encode(image: Image.Image, shows: str) -> Picture:
    """A picture as lossless WebP, a third smaller than PNG; as PNG where it is too large for WebP."""
    buffer, kind = io.BytesIO(), "webp" if max(image.size) <= WEBP_SIDE else "png"
    how: dict[str, Any] = {"lossless": True, "method": 4} if kind == "webp" else {"optimize": True}
    image.save(buffer, format=kind, **how)
    return Picture(_uri(kind, buffer.getvalue()), image.width, image.height, shows)


def from_file(path: Path, shows: str) -> Picture:
    """A picture file as it is, re-encoded where that is smaller."""
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            kind = (image.format or "webp").lower()
            return Picture(_uri(kind, path.read_bytes()), image.width, image.height, shows)
        return encode(image.copy(), shows)


def grids(run: Run) -> list[Moment]:
    """The grids drawn on the way that exist, first to last, all from one noise; the noise itself before them."""
    found = []
    noise = run.samples / "noise.png"
    if noise.exists():
        found.append(Moment(from_file(noise, "the noise that all grids begin from"), "the noise", 0))
    for step, name in milestones(run).items():
        path = run.samples / f"{name}.png"
        if path.exists():
            seen = step * run.config.train.batch_size
            epoch = (step - 1) // run.steps_per_epoch
            when = "start, untrained" if name == START else f"{seen:,} images seen, epoch {epoch}"
            found.append(Moment(from_file(path, f"samples: {when}"), when, seen))
    return found


def forward(run: Run, store: Store) -> tuple[Picture, list[int]]:
    """Real images of the training split dissolving: a row an image, a column a time; and the times."""
    schedule = build.schedule(run.config.diffusion)
    times = [round(i * schedule.T / (FORWARD_STAGES - 1)) for i in range(FORWARD_STAGES)]
    x_0 = store.images("train")[: min(FORWARD_IMAGES, store.count("train"))].float().div(127.5).sub(1)
    eps = randomness.normal(Key(0, "report forward", 0, torch.arange(len(x_0))), tuple(x_0.shape[1:]))
    process = Process(schedule)
    columns = [to_uint8(process.diffuse(x_0, t, eps) if t else x_0) for t in times]
    tiles = torch.stack(columns, 1).flatten(0, 1)
    return encode(grid(tiles, nrow=len(times)), "real images of the data at rising noise"), times


def contact_sheet(store: Store) -> Picture:
    """Some training images of each of the first classes."""
    return encode(contact(store, CLASSES), "training images, a row a class")


def strip_and_animation(run: Run, job: Job, loaded: Checkpoint | None = None) -> tuple[Picture, Picture]:
    """The strip of stages and the animation of a job's first images, from noise to image."""
    frames = way(run, job, ANIMATED, loaded=loaded)
    first = [replace(frame, x=frame.x[:STRIP_IMAGES], x0=frame.x0[:STRIP_IMAGES]) for frame in frames]
    strip = encode(animation.strip(first, STAGES), "stages of sampling, the noisy images above, their estimates below")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "way.webp"
        animation.save_animation(frames, file, nrow=4)
        return strip, from_file(file, "sampling as an animation, from noise to images")


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
