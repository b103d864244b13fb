"""Of what kind the values in a file must be, so that no reader meets text where it computes."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unstir.errors import UserError, short

MOST = 1 << 53  # whole numbers below it are exact as floats too
Kind = Callable[[Any], bool]  # whether a value is of a kind


def check(values: Any, kinds: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> None:
    """Raise ValueError, naming the key, where one of ``kinds`` is missing or one of either is of another kind."""
    if not isinstance(values, Mapping):
        raise ValueError("it is no table")
    for key, is_kind in {**kinds, **(optional or {})}.items():
        if key not in values:
            if key in kinds:
                raise ValueError(f"it has no {key}")
        elif not is_kind(values[key]):
            raise ValueError(f"its {key} is {short(values[key])}")


def check_format(file: Path, found: Any, reads: int) -> None:
    """Raise UserError where ``found``, the number of a file's format, is not the one that this version ``reads``."""
    if found != reads:
        mend = "upgrade unstir" if is_count(found) and found > reads else "train anew, or use the version that wrote it"
        raise UserError("", file, f"has format {short(found)}, this version reads {reads}", mend)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on that a float holds exactly."""
    return type(value) is int and 0 <= value < MOST


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return (type(value) is int and abs(value) < MOST) or (type(value) is float and math.isfinite(value))


def is_figure(value: Any) -> bool:
    """Whether a value is what a measurement gives: a number, infinite or NaN too where it diverged, or None."""
    return value is None or type(value) is float or is_number(value)


def is_figures(value: Any) -> bool:
    """Whether a value is a list of figures without None, or None."""
    return value is None or (isinstance(value, list) and all(each is not None and is_figure(each) for each in value))


def is_text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)
