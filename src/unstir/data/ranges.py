"""Arrays whose values are not those of images, brought to them by one rule for all, which is noted.

    integers in 0..255           as uint8
    uint16 above 255             v / 257, rounded, as files of 16 bits
    floating point in -1..1      (v + 1) / 2, which is then rounded as floating point in 0..1 is

What lies outside the range of the rule is refused. Other types and ranges stay as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstir.data.images import Refused, levels_left

Rule = Callable[[NDArray[Any]], NDArray[Any]]


def rule_of(arrays: Sequence[NDArray[Any]]) -> tuple[Rule | None, str]:
    """The rule for all of these arrays and what it does in words; None and "" where the values stay as they are."""
    arrays = [array for array in arrays if array.size and array.dtype.kind in "iuf" and array.dtype != np.uint8]
    if not arrays:
        return None, ""
    kind, low, high = arrays[0].dtype, min(map(np.min, arrays)), max(map(np.max, arrays))
    if kind.kind == "f":
        scaled = -1 <= low < 0 and high <= 1
        return (_within(-1, 1, lambda v: (v + 1) / 2), "values in -1..1 scaled to 0..255") if scaled else (None, "")
    if low >= 0 and high <= 255:
        return _within(0, 255, lambda v: v.astype(np.uint8)), f"values of type {kind} in 0..255 taken as 8 bits"
    if kind != np.uint16:
        return None, ""
    seen = np.zeros(1 << 16, bool)
    for array in arrays:
        seen[array] = True
    values = np.flatnonzero(seen)
    return _from_16_bits, f"uint16 scaled to 8 bits ({levels_left(len(values), _from_16_bits(values))})"


def _from_16_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _within(low: int, high: int, rule: Rule) -> Rule:
    """A rule that refuses values outside ``low``..``high``."""

    def checked(values: NDArray[Any]) -> NDArray[Any]:
        if values.size and not low <= values.min() <= values.max() <= high:
            raise Refused(f"values from {values.min():.3g} to {values.max():.3g}, where others lie in {low}..{high}")
        return rule(values)

    return checked
