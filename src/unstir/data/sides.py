"""The sides of images as people write them: 32 for squares of 32x32, "24x40" for a height of 24 and a width of 40."""

import re
from typing import Any

from unstir.errors import UserError

MAX_SIDE = 4096


def sides(size: Any) -> tuple[int, int] | None:
    """(height, width) of 32, "24x40" or a pair, each in 1..4096; None for None, 0 or "". UserError for all else."""
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", size) if isinstance(size, str) else None
    pair = (match[1], match[2] or match[1]) if match else size if isinstance(size, tuple | list) else (size, size)
    try:
        height, width = (int(side) if isinstance(side, str) else side.__index__() for side in pair)
    except (AttributeError, ValueError):
        height = width = 0 if size is None or size == "" else -1
    fits = height == width == 0 or (min(height, width) > 0 and max(height, width) <= MAX_SIDE)
    if isinstance(size, bool) or not fits:
        raise UserError("", size, f"must be 1..{MAX_SIDE}, or a height and a width as 24x40")
    return (height, width) if height else None


def written(pair: tuple[int, int]) -> int | str:
    """The sides as settings have them: a whole number for squares, else a text."""
    return pair[0] if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"
