"""Pictures with the names of classes: above the images of a grid, or as a line above the whole."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from unstir.pictures.caption import drawable, font
from unstir.pictures.grid import GAP, blank, grid, write

SIZE = 11
LINE = SIZE + 5
"""Height of a font and of a line of it, in pixels."""


def named_grid(images: Tensor, nrow: int, names: Sequence[str] | None) -> Image.Image:
    """Images, uint8 [N, C, H, W], in rows of ``nrow``, and above each its own of the N ``names``, if there are any.

    The images are those of `grid`, pixel for pixel. A row with the names of the row above does without: where each
    column is a class, the names stand on top alone. A name too long for its image is cut.
    """
    if names is None:
        return grid(images, nrow)
    parts: list[tuple[Image.Image, int]] = []  # and how far below it the next begins
    above: Sequence[str] = ()
    for begin in range(0, len(images), nrow):
        row, of_row = grid(images[begin : begin + nrow], nrow), names[begin : begin + nrow]
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


def titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture below a line of text, which is cut where the picture is narrower; without a text, the picture."""
    if not title:
        return picture
    sheet = blank(picture.mode, picture.width, LINE + picture.height)
    sheet.paste(picture, (0, LINE))
    write(sheet, (GAP, LINE // 2), cut(title, picture.width - 2 * GAP), font(SIZE))
    return sheet


def cut(text: str, width: float) -> str:
    """As much of the text as is no wider than so many pixels, with an ellipsis where some of it is left out."""
    text, letters = drawable(text), font(SIZE)
    if letters.getlength(text) <= width:
        return text
    kept = next((n for n in range(len(text) - 1, 0, -1) if letters.getlength(f"{text[:n]}\u2026") <= width), 0)
    return f"{text[:kept]}\u2026"


def _names(names: Sequence[str], row: Image.Image) -> Image.Image:
    """The names above the images of a row."""
    line = blank(row.mode, row.width, LINE)
    width = (row.width - GAP) // len(names)
    for column, name in enumerate(names):
        middle = GAP + column * width + (width - GAP) // 2
        write(line, (middle, LINE // 2), cut(name, width - GAP), font(SIZE), "mm")
    return line
