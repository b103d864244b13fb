"""A chain to watch: as a moving picture, or its stages side by side. Frames in, picture files out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from PIL import Image, ImageFont
from torch import Tensor

from unstir.diffusion.samplers import Step
from unstir.errors import UserError
from unstir.pictures.charts import evenly
from unstir.pictures.grid import GAP, blank, grid, write
from unstir.pixels import shown

MAX_FRAMES = 61  # both ends of 60 intervals
STAGES = 11  # both ends of 10: a chain of 10, 20, 50, 100 or 1000 steps is shown at round times
_KINDS = {".webp": "WEBP", ".gif": "GIF"}
MILLISECONDS, HOLD = 80, 1500  # for which a frame is shown, and the first and the last
HEAD = 20  # pixels above a grid, for its caption
_MARGIN = 3 * GAP
_X, _X0 = "x_t, at t =", "x_0 as expected from it, at t ="


@dataclass(frozen=True)
class Frame:
    """One state of a chain: x at time ``t`` and the estimate of x_0 made from it: uint8 [N, C, H, W] on the CPU."""

    t: int
    x: Tensor
    x0: Tensor


def collect(
    steps: Iterable[Step],
    x_T: Tensor,
    times: Sequence[int],
    limit: int = MAX_FRAMES,
    pixels: Callable[[Tensor], Tensor] = shown,
) -> Iterator[Frame]:
    """Yield the frames of the chain from ``x_T`` [N, C, H, W] over ``times``, falling to 0: the noise first, the image
    last, each as soon as its step was taken.

    At most ``limit`` of the states, evenly chosen with both ends; the others are never converted, by ``pixels``, or
    kept. The last one, at time 0, is its own estimate.
    """
    wanted = set(evenly(len(times), limit))
    t, x = times[0], x_T
    for number, step in enumerate(steps):
        if number in wanted:
            yield Frame(t, pixels(x), pixels(step.x0))
        t, x = step.t, step.x
    yield Frame(t, pixels(x), pixels(x))


def animation_kind(path: Path) -> str:
    """Pillow's name of the format that a file's suffix asks for; UserError unless it is .webp or .gif."""
    if path.suffix.lower() not in _KINDS:
        raise UserError("", path, f"must end in {' or '.join(_KINDS)}, as an animation does")
    return _KINDS[path.suffix.lower()]


def save_animation(
    frames: Sequence[Frame], path: Path | IO[bytes], kind: str | None = None, *, nrow: int = 8, scale: int = 0
) -> None:
    """Write x_t on the left and the estimate of x_0 on the right as a moving picture that repeats for ever.

    ``kind`` is "WEBP" (without loss) or "GIF" (256 colours), by default what the path's suffix says. A long chain is
    thinned to 61 frames. ``scale`` is that of `grid`. Raises UserError for another suffix, ValueError for no frames.
    """
    kind = kind or animation_kind(Path(str(path)))
    first, *others = [_side_by_side(frames[i], nrow, scale) for i in evenly(len(frames), MAX_FRAMES)]
    durations = [HOLD, *[MILLISECONDS] * (len(others) - 1), HOLD][: 1 + len(others)]
    options = {"lossless": True} if kind == "WEBP" else {"optimize": False}
    first.save(path, format=kind, save_all=True, append_images=others, duration=durations, loop=0, **options)


def strip(frames: Sequence[Frame], stages: int = STAGES, scale: int = 0) -> Image.Image:
    """At most ``stages`` >= 2 of a chain, evenly chosen, a column each: x_t of every image, and below it x_0."""
    shown = [frames[i] for i in evenly(len(frames), stages)]
    tiles = [torch.stack(columns, dim=1).flatten(0, 1) for columns in ([f.x for f in shown], [f.x0 for f in shown])]
    parts = [grid(images, len(shown), scale) for images in tiles]
    width, height = parts[0].size
    picture = blank(parts[0].mode, max(width, _width(_X0)), 2 * (2 * HEAD + height))
    for k, (part, head) in enumerate(zip(parts, (_X, _X0), strict=True)):
        top = k * (2 * HEAD + height)
        write(picture, (GAP, top + HEAD // 2), head, _font())
        for i, frame in enumerate(shown):
            write(picture, (GAP + i * (width - GAP) // len(shown), top + HEAD + HEAD // 2), f"{frame.t}", _font())
        picture.paste(part, (0, top + 2 * HEAD))
    return picture


def _side_by_side(frame: Frame, nrow: int, scale: int) -> Image.Image:
    left, right, of_x0 = grid(frame.x, nrow, scale), grid(frame.x0, nrow, scale), "x_0 as expected"
    room = max(left.width, _width("t = 0000"), _width(of_x0))  # the same in every frame
    picture = blank(left.mode, 2 * room + _MARGIN, HEAD + left.height)
    for begin, part, caption in ((0, left, f"t = {frame.t}"), (room + _MARGIN, right, of_x0)):
        picture.paste(part, (begin, HEAD))
        write(picture, (begin + GAP, HEAD // 2), caption, _font())
    return picture


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=12)


def _width(text: str) -> int:
    return int(_font().getlength(text)) + 2 * GAP
