"""Images next to their nearest training images: what a copy would look like, for the eye to judge."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageFont
from torch import Tensor

from unstir.pictures.grid import GAP, blank, enlarged, scale_of, write

HEAD, NOTE = 18, 13  # pixels of a line of headings, and of one of notes
_SPACE = 12  # between groups; blocks are two of them apart


@dataclass(frozen=True, eq=False)
class Row:
    """An ``image``, uint8 [C, H, W], and ``groups`` of images near to it, uint8 [K, C, H, W] with C = 1 or 3.

    ``note`` is written below the image, and ``notes`` has a few characters for below each image of each group.
    """

    image: Tensor
    note: str
    groups: tuple[Tensor, ...]
    notes: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Block:
    """Rows under a ``title`` and a heading for the image and for each of its groups, ``heads``; one row or more."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]


def pairs(blocks: Sequence[Sequence[Block]]) -> Image.Image:
    """One picture of blocks, a sequence of them side by side in each line; images are enlarged without smoothing."""
    lines = [[_draw(block) for block in line] for line in blocks]
    widths = [sum(part.width for part in line) + 2 * _SPACE * (len(line) - 1) for line in lines]
    heights = [max(part.height for part in line) for line in lines]
    mode = "RGB" if any(part.mode == "RGB" for line in lines for part in line) else "L"
    sheet = blank(mode, max(widths), sum(heights) + _SPACE * (len(lines) - 1))
    top = 0
    for line, height in zip(lines, heights, strict=True):
        left = 0
        for part in line:
            sheet.paste(part, (left, top))
            left += part.width + 2 * _SPACE
        top += height + _SPACE
    return sheet


def _draw(block: Block) -> Image.Image:
    first = block.rows[0]
    channels, height, width = first.image.shape
    scale = scale_of(height)
    tile_width, tile_height = width * scale + GAP, height * scale + GAP + NOTE
    lefts, right = [GAP], GAP + tile_width
    for group in first.groups:
        lefts.append(right + _SPACE)
        right = lefts[-1] + len(group) * tile_width
    font, small = ImageFont.load_default(size=14), ImageFont.load_default(size=10)
    words = [(GAP, HEAD // 2, block.title, font)]
    words += [(left, HEAD + HEAD // 2, head, small) for left, head in zip(lefts, block.heads, strict=True)]
    right = max(right, *(left + int(kind.getlength(text)) + GAP for left, _, text, kind in words))
    sheet = blank("RGB" if channels == 3 else "L", right, 2 * HEAD + len(block.rows) * tile_height)
    for j, row in enumerate(block.rows):
        top = 2 * HEAD + j * tile_height
        tiles = [(lefts[0], row.image, row.note)]
        for left, images, notes in zip(lefts[1:], row.groups, row.notes, strict=True):
            tiles += [(left + i * tile_width, *tile) for i, tile in enumerate(zip(images, notes, strict=True))]
        for left, image, note in tiles:
            sheet.paste(enlarged(image), (left, top))
            words.append((left, top + height * scale + NOTE // 2, note, small))
    for left, middle, text, kind in words:
        write(sheet, (left, middle), text, kind)
    return sheet
