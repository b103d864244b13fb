"""Picture files of the user's as the images and masks of a run."""

from pathlib import Path

import torch
from torch import Tensor

from unstir.data.disk import open_file
from unstir.data.images import Decoded, Refused, decode
from unstir.errors import UserError
from unstir.pixels import from_uint8

Shape = tuple[int, int, int]
"""(C, H, W) of a model's images."""

Box = tuple[int, int, int, int]
"""(left, top, width, height) in pixels of the run's images."""


def read_image(path: Path, shape: Shape) -> Tensor:
    """A picture file as the run's data would hold it, cropped and resized: float32 [1, C, H, W] in [-1, 1].

    Raises UserError where it is no picture, or too small.
    """
    return from_uint8(_pixels(path, shape))[None]


def notes_on(path: Path, shape: Shape) -> list[str]:
    """What `read_image` did to a picture file out of the ordinary, in words."""
    C, H, W = shape
    found = _decoded(path, None, C)
    (height, width), notes = found.pixels.shape[1:], list(found.notes)
    if min(height, width) < H == W:
        notes.append(f"enlarged from {width}x{height} pixels")
    if height != width and H == W:
        notes.append(f"its centre square is used, {min(height, width)} of {width}x{height} pixels")
    return notes


def read_mask(mask: Path | None, box: Box | None, image: Path, shape: Shape) -> Tensor:
    """What to keep, bool [1, 1, H, W]: all but the white part of the picture ``mask`` or all but the ``box``.

    What is transparent in a mask is not white. Raises UserError unless exactly one of them is given, it fits, and it
    leaves and takes at least a pixel.
    """
    H, W = shape[1:]
    if (mask is None) == (box is None):
        raise UserError("name what to fill in, by --mask FILE or by --box X Y WIDTH HEIGHT, and not by both")
    if mask is not None:
        own, whole = (tuple(_decoded(path, None, 1).pixels.shape[1:]) for path in (mask, image))
        if own not in (whole, (H, W)):
            given = f"{mask} is {own[1]}x{own[0]}"
            raise UserError(f"{given}, {image} {whole[1]}x{whole[0]}; draw it at that size, or at the run's {W}x{H}")
        keep = _pixels(mask, shape, channels=1, ground="black")[None] < 128
    else:
        assert box is not None
        x, y, width, height = box
        if min(x, y) < 0 or min(width, height) < 1 or x + width > W or y + height > H:
            inside = f"--box {x} {y} {width} {height} is not inside the run's images of {W}x{H} pixels"
            raise UserError(f"{inside}; give its left, top, width and height")
        keep = torch.ones(1, 1, H, W, dtype=torch.bool)
        keep[..., y : y + height, x : x + width] = False
    if keep.all():
        raise UserError(
            f"{mask} has no white part, so nothing is to fill in; paint white what is, and leave the rest black"
        )
    if not keep.any():
        raise UserError(
            "nothing of the image is kept; leave a part of it black or out of the box, or use unstir sample"
        )
    return keep


def _pixels(path: Path, shape: Shape, channels: int = 0, ground: str = "white") -> Tensor:
    """A picture file at the run's size: uint8 [C, H, W]. Square images are cropped and resized, others have to fit."""
    C, H, W = shape
    found = _decoded(path, H if H == W else None, channels or C, ground)
    pixels = torch.from_numpy(found.pixels.copy())
    if pixels.shape[1:] != (H, W):
        size = f"{pixels.shape[2]}x{pixels.shape[1]}"
        raise UserError(f"{path} is {size}, the run's images are {W}x{H} and not square; crop it to that size")
    return pixels


def _decoded(path: Path, size: int | None, channels: int, ground: str = "white") -> Decoded:
    try:
        with open_file(path) as file:
            return decode(file.read(), path.name, size, channels, ground)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name a picture file") from None
    except Refused as error:
        raise UserError(f"{path} is no picture that can be used: {error}; name another") from None
