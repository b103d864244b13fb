"""The files of an edit: pictures and masks that are read, the picture that is written, and its results one by one."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from unstir.data.decoding import decoded, picture_errors
from unstir.data.images import Shape, centre, fit, to_array
from unstir.edit.editing import Edited, Picture
from unstir.errors import UserError
from unstir.pictures.grid import to_picture
from unstir.pixels import from_uint8
from unstir.progress import sized
from unstir.runs import sidecar

Box = tuple[int, int, int, int]  # (left, top, width, height) in pixels of the run's images
MOST_GREY = 0.25  # of a mask's pixels; soft edges are grey too
MOST_COLOURED = 0.01  # of a mask's pixels; a few are what lossy files leave
ONE_COLOUR = 32  # levels of 255: a channel of paint varies by less, in lossy files too
SHOWN = 512  # pixels a side of a picture that is to be edited
LONGEST = 60  # characters of each of two parts of a file's name


def read_image(picture: Picture, shape: Shape) -> Tensor:
    """A picture as the run's data would hold it: float32 [1, C, H, W] in [-1, 1]; UserError where it is none."""
    return from_uint8(torch.from_numpy(decoded(picture, shape[1:], shape[0]).pixels.copy()))[None]


def notes_on(picture: Picture, shape: Shape) -> list[str]:
    """What `read_image` did to a picture out of the ordinary, in words."""
    C, H, W = shape
    read = decoded(picture, None, C)
    (height, width), notes = read.pixels.shape[1:], list(read.notes)
    wide, high = map(round, centre(width, height, (H, W)))
    if high < H:
        notes.append(f"enlarged from {sized((height, width))} pixels")
    if (wide, high) != (width, height):
        notes.append(f"its centre is used, {sized((high, wide))} of {sized((height, width))} pixels")
    return notes


def shown(picture: Picture, shape: Shape) -> Image:
    """The part of a picture that is edited, as large as its detail allows, and at most `SHOWN` pixels."""
    C, H, W = shape
    whole = to_picture(torch.tensor(decoded(picture, None, C).pixels))
    most = min(SHOWN // max(H, W), int(centre(*whole.size, (H, W))[1]) // H)
    return fit(whole, (max(1, most) * H, max(1, most) * W), [])


def read_mask(mask: Picture | None, box: Box | None, image: Picture | None, shape: Shape) -> Tensor:
    """What to keep, bool [1, 1, H, W]: all but the hole in the picture ``mask`` (`_hole`) or all but the ``box``.

    A mask has the size of the run's images, or of the ``image`` if that is one file. Raises UserError unless exactly
    one of them is given, it fits, and it leaves and takes at least a pixel.
    """
    H, W = shape[1:]
    if (mask is None) == (box is None):
        raise UserError("mask", mask, "or else box must say what to fill in", "give one of them")
    if mask is not None:
        hole, whole = _hole(mask), (H, W) if image is None else decoded(image, None, 3).pixels.shape[1:]
        if hole.shape not in (whole, (H, W)):
            sizes = f"that of the image, {sized(whole)}, or of the run's images, {sized((H, W))}"
            raise UserError("mask", named(mask), f"is {sized(hole.shape)}", f"draw it at {sizes}")
        with picture_errors(mask):
            fitted = fit(to_picture((hole[None] * 255).byte()), (H, W), [])
        keep = torch.tensor(to_array(fitted, 1))[None] < 128
    else:
        assert box is not None
        x, y, width, height = box
        if min(x, y) < 0 or min(width, height) < 1 or x + width > W or y + height > H:
            inside = f"is not inside the run's images of {sized((H, W))} pixels"
            raise UserError("box", box, inside, "give its left, top, width and height")
        keep = torch.ones(1, 1, H, W, dtype=torch.bool)
        keep[..., y : y + height, x : x + width] = False
    if keep.all():
        raise UserError("mask", named(mask), "has no white part", "paint white what is to be filled in")
    if not keep.any():
        raise UserError("box" if box else "mask", box or named(mask), "keeps nothing of the image", "make it smaller")
    return keep


def _hole(mask: Picture) -> Tensor:
    """What a mask says to fill in, bool [height, width]: what is painted in one colour on a transparent layer.

    It is the transparent part of any other picture, and the white part of one without transparency.
    UserError for one of colours or greys without transparency, such as a photo.
    """
    on_black, on_white = (torch.tensor(decoded(mask, None, 3, on).pixels).int() for on in ("black", "white"))
    opacity, least, most = 255 - (on_white - on_black).amax(0), on_black.amin(0), on_black.amax(0)
    strongest = int(opacity.max())  # below 255 where all is painted with a thin brush
    clear = 2 * opacity < strongest
    if clear.any():
        solid = opacity >= 0.9 * strongest  # soft edges may have a colour of their own
        painted = on_black[:, solid] * 255 / opacity[solid]
        one_colour = float((painted.amax(1) - painted.amin(1)).max()) < ONE_COLOUR
        return ~clear if one_colour else clear
    coloured, grey = most - least >= 64, (most >= 64) & (least < 192)
    for what, part, limit in (("coloured", coloured, MOST_COLOURED), ("neither black nor white", grey, MOST_GREY)):
        if (share := float(part.float().mean())) > limit:
            paint = "paint white, or erase, what is to be filled in, and paint black what is kept"
            raise UserError("mask", named(mask), f"is {what} in {share:.0%} of its pixels", paint)
    return least >= 128


def named(picture: Picture | None) -> Path | None:
    """The file of a picture, None for one in memory."""
    return picture if isinstance(picture, Path) else None


def pasted(image: Picture, made: Tensor, keep: Tensor) -> Image:
    """A picture at its own size with a result ``made``, uint8 [C, H, W], where ``keep`` [1, 1, H, W] is false."""
    photo = to_picture(torch.tensor(decoded(image, None, 3).pixels))
    width, height = map(round, centre(photo.width, photo.height, (made.shape[1], made.shape[2])))
    corner = (photo.width - width) // 2, (photo.height - height) // 2
    hole = to_picture((~keep[0] * 255).byte()).resize((width, height), Resampling.NEAREST)
    photo.paste(to_picture(made).convert("RGB").resize((width, height), Resampling.LANCZOS), corner, hole)
    return photo


@dataclass(frozen=True)
class Target:
    """The picture of an edit: ``out``, or a file in ``folder`` of a name made of ``parts`` and all that decides it.

    With ``singles`` each result is a file too, OUT-0.png, ...; ``into`` has the first result `pasted` into the image.
    Files that are ``read`` are never replaced. UserError where one cannot be written or replaces what is no edit's.
    """

    out: Path | None
    folder: Path
    parts: Sequence[str | int | Path]
    read: Sequence[Path] = ()
    singles: bool = False
    into: Path | None = None

    def __post_init__(self) -> None:
        read = {path.resolve() for path in self.read}
        if self.into is not None:
            if self.into.resolve() in read:
                raise UserError("into", self.into, "is an image that is read", "name another file")
            sidecar.check(self.into, key="into")
        if self.out is None:
            sidecar.check(self.folder / "any.png")
            return
        if self.into is not None and self.into.parent.resolve() == self.out.parent.resolve():
            names = self.into.with_suffix(".png").name, self.out.with_suffix(".png").name  # as their sidecars have it
            if names[0] == names[1] or (self.singles and sidecar.is_numbered(self.into, self.out)):
                raise UserError("into", self.into, f"would replace {self.out} or a result", "name another file")
        there = self.out.parent.glob("*.png") if self.singles else ()
        files = [path for path in there if sidecar.is_numbered(path, self.out)]
        goes = (self.out, *files, *sidecar.singles_of(self.out))  # with the picture that is replaced
        if any(path.resolve() in read for path in goes):
            raise UserError("out", self.out, "would replace the image that is edited", "name another file")
        sidecar.check(self.out, files)

    def save(self, edited: Edited) -> tuple[str, ...]:
        """Write the picture and what was asked besides; return in words where, and what it cost."""
        file = self.out or self.folder / self._name(edited.settings)
        pictures = [to_picture(pixels) for pixels in edited.made] if self.singles else []
        singles = sidecar.numbered(file, len(pictures))
        cost = f"{edited.calls:,} call{'s' * (edited.calls > 1)}{edited.besides}"
        psnr = [None if value == math.inf else value for value in edited.psnr]
        record = {"calls": edited.calls, "cost": cost, **({"psnr": psnr} if psnr else {})}
        command = f"unstir edit {edited.settings['edit']}"
        sidecar.save(file, sidecar.png(edited.picture()), command, edited.settings, pictures, **record)
        if self.into is not None and edited.keep is not None:
            photo = pasted(self.read[0], edited.made[0], edited.keep)
            sidecar.save(self.into, sidecar.png(photo), command, edited.settings)
        return (
            f"picture  {file}",
            *([f"pasted   {self.into}"] if self.into else []),
            *([f"singles  {singles[0]} to {singles[-1].name}"] if singles else []),
            f"calls    {edited.calls} of the network{edited.besides}",
            *([f"PSNR     {' and '.join(f'{value:.1f}' for value in edited.psnr)} dB"] if edited.psnr else []),
        )

    def _name(self, settings: dict[str, Any]) -> str:
        parts = [part.stem if isinstance(part, Path) else re.sub(r"[^\w-]+", "-", str(part)) for part in self.parts]
        name = "-".join([settings["edit"], *(part[:LONGEST] for part in parts)])
        return f"{name}-seed{settings['chain']['seed']}-{sidecar.digest(settings)}.png"
