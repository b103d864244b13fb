"""Foreign names as captions on pictures: every character of theirs can be seen, and long ones are cut."""

import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

from unstir.errors import printable

SIZE = 11  # of the font of names above images, in pixels


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
    shown = text = _drawable(name)
    kept = len(text)
    while font(size).getlength(shown) > width and kept > 2:
        kept -= 1
        shown = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
    return shown


def of_class(number: int, name: str) -> str:
    """The name of a class for a picture, behind its number where the font lacks a character of it."""
    return name if _drawn().issuperset(map(ord, _plain(name))) else f"{number}: {name}"


def _drawable(name: str) -> str:
    """The name with a code, such as \\u65e5, for each character that the font cannot draw."""
    return "".join(c if ord(c) in _drawn() else c.encode("unicode_escape").decode("ascii") for c in _plain(name))


def _plain(name: str) -> str:
    return printable(unicodedata.normalize("NFC", name))


@cache
def _drawn() -> frozenset[int]:
    """The code points that the font has a glyph for."""
    if not (path := _dejavu()):
        return frozenset(range(32, 127))
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())
