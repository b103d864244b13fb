"""One computation at a time: the others wait for their turn, a bounded number of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

WAITING = 16


class FullError(Exception):
    """As many computations wait as may."""


class Turns:
    """Who computes, and how many wait."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._places, self._turn = BoundedSemaphore(waiting + 1), Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """In this block no other thread computes. Raises FullError at once where too many wait."""
        if not self._places.acquire(blocking=False):
            raise FullError
        try:
            with self._turn:
                yield
        finally:
            self._places.release()
