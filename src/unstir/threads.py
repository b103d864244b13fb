"""Whether torch's threads wait for each other because other work takes the processor cores that they need.

torch shares an operation among its threads and goes on when all have done their part. Where another program has one of
the cores, the part of one thread waits for some milliseconds until that core is free, in each of the hundreds of
operations of a step, so that two threads may be a hundred times as slow as one.
"""

import shlex
import sys
import time
from collections import deque
from pathlib import Path
from typing import ClassVar

import torch

NUMBERS = 2**17  # of one operation: torch shares it among its threads, and free threads need some 10 microseconds
OPERATIONS, MOST = 40, 0.2  # of a look, and its seconds
SLOW = 5e-4  # seconds of an operation: in a step of the smallest networks some 500 of them
EVERY = 2.0  # seconds between two looks
LAST, FOUND = 10, 3  # of so many looks so many find it: a moment's work of another program is no reason for advice


def operation_seconds() -> float:
    """Seconds of an operation that torch's threads share: the mean of `OPERATIONS`, or of as many as `MOST` allows."""
    numbers = torch.zeros(NUMBERS)
    began = now = time.perf_counter()
    done = 0
    while done < OPERATIONS and now - began < MOST:
        numbers.add_(1)
        done, now = done + 1, time.perf_counter()
    return (now - began) / done


class Crowded:
    """Call it as often as you like while torch computes on the CPU; it looks now and then, and speaks once a process.

    ``where`` says in which case the same command can go on with fewer threads, such as ", where no image is drawn yet".
    """

    said: ClassVar[bool] = False

    def __init__(self, where: str = "") -> None:
        self._where, self._next = where, time.monotonic()
        self._looks: deque[float] = deque(maxlen=LAST)

    def __call__(self) -> str | None:
        """What to say of threads that wait for each other, once; else None."""
        threads = torch.get_num_threads()
        if Crowded.said or threads == 1 or time.monotonic() < self._next or _on_gpu():
            return None
        self._looks.append(operation_seconds())
        self._next = time.monotonic() + EVERY
        slow = [1000 * seconds for seconds in self._looks if seconds >= SLOW]
        if len(slow) < FOUND:
            return None
        Crowded.said = True
        return (
            f"other work takes this machine's cores: torch's {threads} threads wait for each other, up to "
            f"{max(slow):.2g} ms in each of hundreds of operations a step. What may be many times as fast"
            f"{self._where}: Ctrl-C, then OMP_NUM_THREADS={threads // 2} {_command()}"
        )


def _command() -> str:
    """The command that this process carries out, as it was typed."""
    name, *words = sys.argv
    return shlex.join(["unstir", *words]) if Path(name).name in ("unstir", "__main__.py") else "and the same command"


def _on_gpu() -> bool:
    cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return cuda or torch.backends.mps.is_available()
