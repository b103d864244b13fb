"""The one font of captions on pictures: DejaVu Sans, which matplotlib brings, with Latin, Greek, Cyrillic and more."""

from functools import cache
from pathlib import Path

from PIL import ImageFont


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels."""
    import matplotlib  # takes a while to import

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
