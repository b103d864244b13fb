"""Numbers of a run's logs, which may hold anything."""

from collections.abc import Iterable
from typing import Any, TypeGuard

from unstir.runs import files

Line = dict[str, Any]  # of a log
Lines = tuple[Line, ...]
LARGEST = 1e60  # a larger value of a log counts as none: Welch's test takes fourth powers, which would overflow a float


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a log is a number that can be computed with: finite, and not beyond `LARGEST`."""
    return files.is_number(value) and abs(value) <= LARGEST


def numbers(lines: Iterable[Line], key: str) -> list[float]:
    """The numbers under ``key``, of the lines that have one."""
    return [float(value) for line in lines if is_number(value := line.get(key))]
