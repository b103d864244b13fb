"""Rows of an array on disk that the system reads before they are asked for, so that random access waits for no disk."""

import mmap
from collections.abc import Iterable
from typing import Any

from unstir.data.disk import file_errors, open_file
from unstir.data.store import HEADER_BYTES, Array


class Ahead:
    """Asks the system for rows of an array, which it then reads aside; nothing is copied, nothing waits."""

    def __init__(self, array: Array) -> None:
        """Map the file; raises UserError where it has gone."""
        with file_errors(array.file), open_file(array.file) as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._row = (array.length - HEADER_BYTES) // array.shape[0]

    def __call__(self, rows: Iterable[int]) -> None:
        """Begin to read rows, numbers in 0..N-1, where the system takes such advice."""
        advice: Any = getattr(mmap, "MADV_WILLNEED", None)
        for row in rows if advice is not None else ():
            first = HEADER_BYTES + row * self._row
            start = first - first % mmap.PAGESIZE
            self._map.madvise(advice, start, first + self._row - start)
