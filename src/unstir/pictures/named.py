"""A grid of images with the names of their classes above them; the images are those of `grid`, pixel for pixel."""

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from unstir.pictures.font import font
from unstir.pictures.grid import GAP, GROUND, grid

SIZE = 11  # of the letters, in pixels
STRIP = 16  # pixels above a row, for its names


def named_grid(images: Tensor, nrow: int, names: Sequence[str] | None) -> Image.Image:
    """Images, uint8 [N, C, H, W], in rows of ``nrow``, and above each its own of the N ``names``, if there are any.

    A row with the names of the row above does without: where each column is a class, the names stand on top alone. A
    name too long for its image is cut.
    """
    if names is None:
        return grid(images, nrow)
    parts: list[Image.Image] = []
    above: Sequence[str] = ()
    for begin in range(0, len(images), nrow):
        row, of_row = grid(images[begin : begin + nrow], nrow), names[begin : begin + nrow]
        if tuple(of_row) != tuple(above[: len(of_row)]):
            parts.append(_strip(of_row, row))
        parts.append(row)
        above = of_row
    height = sum(part.height for part in parts) - GAP * (sum(part.height != STRIP for part in parts) - 1)
    sheet = Image.new(parts[0].mode, (max(part.width for part in parts), height), _ground(parts[0].mode))
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height - (0 if part.height == STRIP else GAP)  # the gap below a row is that above the next
    return sheet


def _strip(names: Sequence[str], row: Image.Image) -> Image.Image:
    """The names above the images of a row."""
    strip = Image.new(row.mode, (row.width, STRIP), _ground(row.mode))
    width = (row.width - GAP) // len(names)
    for column, name in enumerate(names):
        middle = GAP + column * width + (width - GAP) // 2
        ImageDraw.Draw(strip).text(
            (middle, STRIP // 2), _fitting(name, width - GAP), fill=0, font=font(SIZE), anchor="mm"
        )
    return strip


def _fitting(name: str, width: int) -> str:
    """A name, or as much of it as is not wider than so many pixels."""
    name = " ".join(name.split())
    if font(SIZE).getlength(name) <= width:
        return name
    kept = next((n for n in range(len(name), 0, -1) if font(SIZE).getlength(name[:n] + "…") <= width), 0)
    return name[:kept] + "…"


def _ground(mode: str) -> int | tuple[int, int, int]:
    return GROUND if mode == "L" else (GROUND,) * 3
