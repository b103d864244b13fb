"""One computation at a time: the others wait for their turn, a bounded number of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock, Thread, current_thread

WAITING = 16
SECONDS = 1.0  # for which a thread may stay, such as one that waits for its client


class FullError(Exception):
    """As many computations wait as may."""


class Turns:
    """Who computes, and how many wait."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._places, self._turn = BoundedSemaphore(waiting + 1), Lock()
        self._last: Thread | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """In this block no other thread computes. Raises FullError at once where too many wait."""
        if not self._places.acquire(blocking=False):
            raise FullError
        try:
            with self._turn:
                self._last = current_thread()
                yield
        finally:
            self._places.release()

    def close(self) -> None:
        """Wait for the computation under way, and for its thread to leave torch; nobody computes after it."""
        self._turn.acquire()
        if self._last is not None:
            self._last.join(SECONDS)
