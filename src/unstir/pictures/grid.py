"""Images as pictures: many as one, on a light ground, enlarged by a whole factor, with any names; and PNG files."""

import io
import struct
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from unstir.errors import printable

GAP = 2
_GROUND = 255
WIDEST = 180  # of a caption, in pixels
SIZE = 11  # of the font of names above images, in pixels
LINE = SIZE + 5  # the height of a line of names
_TEXT = 14
_END = b"\0\0\0\0IEND\xaeB`\x82"
TILE = 48  # smaller images are enlarged until they are at least this high, in pixels
SIGNED = {"Software": "unstir"}
SIGNATURE = b"tEXtSoftware\0unstir"  # these words in a PNG file
"""The text in the PNG of a picture without a sidecar, which may be replaced by the next one of its kind."""


def to_picture(image: Tensor) -> Image.Image:
    """One image, uint8 [C, H, W] with C = 1 or 3, as a Pillow picture of mode L or RGB."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))


def read(path: Path) -> Tensor:
    """The image in a file, uint8 [C, H, W]. Raises OSError where there is none."""
    with Image.open(path) as picture:
        array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    """Whether a file is a PNG of 8 bits of ``shape`` (C, H, W), every chunk with its checksum; nothing is decoded."""
    channels, height, width = shape
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", width, height, 8, 0 if channels == 1 else 2)
    try:
        data = path.read_bytes()
        if not (data.startswith(head) and data.endswith(_END)):
            return False
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.verify()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def with_words(**words: str) -> PngInfo:
    """What makes a PNG say by which run or weights it was drawn, for `Image.save`."""
    info = PngInfo()
    for key, value in words.items():
        info.add_text(key, value)
    return info


def grid(images: Tensor, nrow: int = 8, scale: int = 0) -> Image.Image:
    """Images, uint8 [N, C, H, W], in rows of ``nrow``, enlarged without smoothing by ``scale``, 0 for `scale_of`."""
    rows = [list(images[i : i + nrow]) for i in range(0, len(images), nrow)]
    return _sheet(rows, tuple(images.shape[1:]), captions=None, scale=scale)


def contact_sheet(rows: Sequence[tuple[str, Tensor]], widest: int = WIDEST, scale: int = 0) -> Image.Image:
    """A row per class: its name, of at most ``widest`` pixels, and images, uint8 [N, C, H, W], in ``scale``."""
    captions, images = [caption(name, _TEXT, widest) for name, _ in rows], [list(images) for _, images in rows]
    return _sheet(images, tuple(rows[0][1].shape[1:]), captions, scale)


def named_grid(images: Tensor, nrow: int, names: Sequence[str] | None, scale: int = 0) -> Image.Image:
    """Images, uint8 [N, C, H, W], in rows of ``nrow``, and above each its own of the N ``names``, if there are any.

    The images are those of `grid`, pixel for pixel. A row with the names of the row above does without: where each
    column is a class, the names stand on top alone.
    """
    if names is None:
        return grid(images, nrow, scale)
    parts: list[tuple[Image.Image, int]] = []  # and how far below it the next begins
    above: Sequence[str] = ()
    for begin in range(0, len(images), nrow):
        row, of_row = grid(images[begin : begin + nrow], nrow, scale), names[begin : begin + nrow]
        if tuple(of_row) != tuple(above[: len(of_row)]):
            parts.append((_names(of_row, row), LINE))
        parts.append((row, row.height - GAP))  # the gap below a row is that above the next
        above = of_row
    sheet = blank(parts[0][0].mode, max(part.width for part, _ in parts), sum(step for _, step in parts) + GAP)
    top = 0
    for part, step in parts:
        sheet.paste(part, (0, top))
        top += step
    return sheet


def corner(
    sheet: Image.Image, shape: tuple[int, ...], nrow: int, names: Sequence[str] | None, most: int
) -> Image.Image:
    """The first ``most`` rows and columns of a `named_grid` of ``shape`` (C, H, W); ``names`` as there, or None."""
    _, height, width = (scale_of(shape[1]) * side for side in shape)
    bottom = GAP + most * (height + GAP)
    if names is not None:
        rows = [tuple(names[row * nrow : (row + 1) * nrow]) for row in range(most)]
        bottom += LINE * sum(row == 0 or of_row != rows[row - 1] for row, of_row in enumerate(rows))
    return sheet.crop((0, 0, min(GAP + most * (width + GAP), sheet.width), min(bottom, sheet.height)))


def titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture below a line of text, which is cut where the picture is narrower; without a text, the picture."""
    if not title:
        return picture
    sheet = blank(picture.mode, picture.width, LINE + picture.height)
    sheet.paste(picture, (0, LINE))
    write(sheet, (GAP, LINE // 2), caption(title, SIZE, picture.width - 2 * GAP), font(SIZE))
    return sheet


def blank(mode: str, width: int, height: int) -> Image.Image:
    """An empty picture of mode L or RGB, on the light ground."""
    return Image.new(mode, (width, height), (_GROUND,) * 3 if mode == "RGB" else _GROUND)


def write(sheet: Image.Image, place: tuple[int, int], text: str, font: Any, anchor: str = "lm") -> None:
    """Write a line of black text; ``anchor`` is Pillow's, by default the left end of its middle."""
    ImageDraw.Draw(sheet).text(place, text, fill=(0, 0, 0) if sheet.mode == "RGB" else 0, font=font, anchor=anchor)


def scale_of(height: int) -> int:
    """The whole factor by which images of a height in pixels are enlarged, to `TILE` or more."""
    return max(1, -(-TILE // height))


def enlarged(image: Tensor, scale: int = 0) -> Image.Image:
    """One image, uint8 [C, H, W], enlarged without smoothing, by `scale_of` unless a ``scale`` is given."""
    scale, picture = scale or scale_of(image.shape[1]), to_picture(image)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _sheet(
    rows: Sequence[Sequence[Tensor]], shape: tuple[int, ...], captions: Sequence[str] | None, scale: int
) -> Image.Image:
    channels, height, width = shape
    scale = scale or scale_of(height)
    line = LINE if captions is not None else 0
    tile_height, tile_width = max(height * scale, line) + GAP, width * scale + GAP
    left = GAP + (8 + max(int(font(_TEXT).getlength(text)) for text in captions) if captions is not None else 0)
    columns = max(len(row) for row in rows)
    sheet = blank("RGB" if channels == 3 else "L", left + columns * tile_width, GAP + len(rows) * tile_height)
    for j, row in enumerate(rows):
        top = GAP + j * tile_height
        for i, image in enumerate(row):
            sheet.paste(enlarged(image, scale), (left + i * tile_width, top))
        if captions is not None:
            write(sheet, (GAP + 2, top + (tile_height - GAP) // 2), captions[j], font(_TEXT))
    return sheet


def _names(names: Sequence[str], row: Image.Image) -> Image.Image:
    line = blank(row.mode, row.width, LINE)
    width = (row.width - GAP) // len(names)
    for column, name in enumerate(names):
        middle = GAP + column * width + (width - GAP) // 2
        write(line, (middle, LINE // 2), caption(name, SIZE, width - GAP), font(SIZE), "mm")
    return line


@cache
def font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    """The font of captions at a size in pixels: matplotlib's DejaVu Sans, else Pillow's, of which ASCII is drawn."""
    path = _dejavu()
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _dejavu() -> str:
    try:
        import matplotlib  # takes a while to import
    except ImportError:
        return ""
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def caption(name: str, size: int, width: float) -> str:
    """The name as it is drawn at a font of ``size`` pixels in at most ``width`` pixels.

    What the font cannot draw is shown as its code, such as \\u65e5. Both ends of a long name stay, for names often
    differ in one of them alone.
    """
    shown = text = "".join(
        c if ord(c) in _drawn() else c.encode("unicode_escape").decode("ascii") for c in _plain(name)
    )
    kept = len(text)
    while font(size).getlength(shown) > width and kept > 2:
        kept -= 1
        shown = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
    return shown


def of_class(number: int, name: str) -> str:
    """The name of a class for a picture, behind its number where the font lacks a character of it."""
    return name if _drawn().issuperset(map(ord, _plain(name))) else f"{number}: {name}"


def _plain(name: str) -> str:
    return printable(unicodedata.normalize("NFC", name))


@cache
def _drawn() -> frozenset[int]:
    """The code points that the font has a glyph for."""
    if not (path := _dejavu()):
        return frozenset(range(32, 127))
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())
