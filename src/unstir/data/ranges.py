"""Arrays whose values are not those of images, brought to them by one rule for all, which is noted: integers in 0..255,
uint16 by v / 257, and floating point in -1..1 by (v + 1) / 2. Values outside the range of the rule are refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstir.data.images import Refused, from_16_bits, levels_left

_NEAR = 2**-4  # levels by which the numbers of half precision differ from k/255

Rule = Callable[[Any], Any]


def rule_of(arrays: Sequence[NDArray[Any]], what: str, depth: str) -> tuple[Rule, list[tuple[str, str]]]:
    """The rule for arrays like these, and what it does as a note of ``what`` they are."""
    arrays = [array for array in arrays if array.size and array.dtype.kind in "iuf" and array.dtype != np.uint8]
    if not arrays or depth == "float":
        return _as_it_is, []
    kind, low, high = arrays[0].dtype, min(map(np.min, arrays)), max(map(np.max, arrays))
    if kind.kind == "f":
        within = -1 <= low < 0 and high <= 1
        if within and (depth == "8" or all(is_8_bit(_raised(image)) for array in arrays for image in array)):
            return _within(-1, 1, _raised), [("values in -1..1 scaled to 0..255", what)]
    elif low >= 0 and high <= 255:
        return _within(0, 255, lambda v: v.astype(np.uint8)), [(f"{kind} in 0..255 taken as 8 bits", what)]
    elif kind == np.uint16:
        seen = np.zeros(1 << 16, bool)
        for array in arrays:
            for image in array:
                seen[image] = True
        values = np.flatnonzero(seen)
        left = levels_left(len(values), from_16_bits(values))
        return _within(0, 65535, from_16_bits), [("uint16 scaled to 8 bits", f"{what} ({left})")]
    return _as_it_is, []


def is_8_bit(values: NDArray[Any]) -> bool:
    """Whether no value is floating point, or each is one of 256 levels in 0..1."""
    if not np.issubdtype(values.dtype, np.floating):
        return True
    with np.errstate(invalid="ignore", over="ignore"):
        levels = values.astype(np.float64) * 255
        return bool(((levels >= 0) & (levels <= 255) & (np.abs(levels - np.round(levels)) < _NEAR)).all())


def _as_it_is(values: Any) -> Any:
    return values


def _raised(values: NDArray[Any]) -> NDArray[Any]:
    return (values.astype(np.float32) + 1) / 2


def _within(low: int, high: int, rule: Rule) -> Rule:

    def checked(item: Any) -> Any:
        values = np.asarray(item)
        if values.size and not low <= values.min() <= values.max() <= high:
            raise Refused(f"values from {values.min():.3g} to {values.max():.3g}, where others lie in {low}..{high}")
        return rule(values)

    return checked
