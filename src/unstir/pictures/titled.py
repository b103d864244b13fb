"""A line of text, such as the names of classes, above a picture."""

from PIL import Image, ImageDraw

from unstir.errors import printable
from unstir.pictures.font import font
from unstir.pictures.grid import GAP, GROUND

SIZE = 11
LINE = SIZE + 5
"""Height of a font and of a line of it, in pixels."""


def titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture below a line of text, which is cut where the picture is narrower; without a text, the picture."""
    if not title:
        return picture
    sheet = _blank(picture.mode, picture.width, LINE + picture.height)
    sheet.paste(picture, (0, LINE))
    _write(sheet, GAP, 0, cut(title, picture.width - 2 * GAP))
    return sheet


def cut(text: str, width: float) -> str:
    """As much of the text as is no wider than so many pixels, with an ellipsis where some of it is left out."""
    text, letters = printable(text), font(SIZE)
    if letters.getlength(text) <= width:
        return text
    kept = next((n for n in range(len(text) - 1, 0, -1) if letters.getlength(f"{text[:n]}\u2026") <= width), 0)
    return f"{text[:kept]}\u2026"


def _blank(mode: str, width: int, height: int) -> Image.Image:
    return Image.new(mode, (width, height), GROUND if mode == "L" else (GROUND,) * 3)


def _write(sheet: Image.Image, left: int, top: int, text: str) -> None:
    black = 0 if sheet.mode == "L" else (0, 0, 0)
    ImageDraw.Draw(sheet).text((left, top + LINE // 2), text, fill=black, font=font(SIZE), anchor="lm")
