"""One thread computes, first come, first served: the others wait, a bounded number of them.

Torch keeps a pool of threads for each thread that calls it, so no thread of a connection may.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import BoundedSemaphore, Semaphore

from unstir.serve.state import Answer

WAITING = 16
LINES = 64  # that may wait for a client who reads slowly
PATIENCE = 2.0  # seconds for which a computation waits for such a client to take one

Job = Callable[[Callable[[Answer], None]], None]
"""job(send) computes, and calls send(line) for each line of the answer."""


class FullError(Exception):
    """As many computations wait as may."""


class Turns:
    """The thread that computes, and how many wait for it."""

    def __init__(self) -> None:
        self._places, self._thread = BoundedSemaphore(WAITING + 1), ThreadPoolExecutor(1)

    def lines(self, job: Job) -> Iterator[Answer]:
        """The lines of a job, computed when its turn comes; raises FullError where too many wait, and as the job."""
        if not self._places.acquire(blocking=False):
            raise FullError
        lines, room = SimpleQueue[Answer | None](), Semaphore(LINES)

        def send(line: Answer) -> None:
            if not room.acquire(timeout=PATIENCE):
                raise TimeoutError
            lines.put(line)

        def end(_: object) -> None:
            self._places.release()
            lines.put(None)

        done = self._thread.submit(job, send)
        done.add_done_callback(end)
        while (line := lines.get()) is not None:
            yield line
            room.release()
        done.result()

    def close(self) -> None:
        """Wait for the jobs that were begun; nothing computes after it."""
        self._thread.shutdown()
