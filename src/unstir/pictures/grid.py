"""Many images as one, on a light ground, enlarged by a whole factor so that small ones can be seen."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from unstir.pictures.caption import caption
from unstir.pictures.font import font

GAP = 2
GROUND = 255
WIDEST = 180  # of a caption, in pixels
_TEXT = 14
TILE = 48  # smaller images are enlarged until they are at least this high, in pixels


def to_picture(image: Tensor) -> Image.Image:
    """One image, uint8 [C, H, W] with C = 1 or 3, as a Pillow picture of mode L or RGB."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))


def grid(images: Tensor, nrow: int = 8) -> Image.Image:
    """Images, uint8 [N, C, H, W], in rows of ``nrow``, enlarged without smoothing."""
    tiles = list(images)
    rows = [tiles[i : i + nrow] for i in range(0, len(tiles), nrow)]
    return _sheet(rows, tuple(images.shape[1:]), captions=None)


def contact_sheet(rows: Sequence[tuple[str, Tensor]], widest: int = WIDEST) -> Image.Image:
    """A row a class: its name, shortened to ``widest`` pixels, and some of its images, uint8 [N, C, H, W]."""
    shape = tuple(rows[0][1].shape[1:])
    return _sheet([list(images) for _, images in rows], shape, [caption(name, _TEXT, widest) for name, _ in rows])


def _sheet(rows: Sequence[Sequence[Tensor]], shape: tuple[int, ...], captions: Sequence[str] | None) -> Image.Image:
    channels, height, width = shape
    scale = max(1, -(-TILE // height))
    tile_height, tile_width = height * scale + GAP, width * scale + GAP
    left = GAP
    if captions is not None:
        left += max(int(font(_TEXT).getlength(text)) for text in captions) + 8
    columns = max(len(row) for row in rows)
    size = (left + columns * tile_width, GAP + len(rows) * tile_height)
    sheet = Image.new("RGB" if channels == 3 else "L", size, (GROUND,) * 3 if channels == 3 else GROUND)
    for j, row in enumerate(rows):
        top = GAP + j * tile_height
        for i, image in enumerate(row):
            picture = to_picture(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + i * tile_width, top))
        if captions is not None:
            middle = top + (tile_height - GAP) // 2
            ImageDraw.Draw(sheet).text((GAP + 2, middle), captions[j], fill=0, font=font(_TEXT), anchor="lm")
    return sheet
