"""A thread by which the processes of a job notice that one of them is dead or frozen, or was asked to stop.

Each process counts up a number of its own in the store that the launcher keeps, and looks at that of the next one, the
last at that of the first. The number of a process that was killed, is stopped, or whose machine has gone stands still.
However long a step or a grid takes, the thread goes on counting: so the limit need not be above the longest step, as
a timeout of the exchange itself would have to be.

Who notices first writes down why the job ends, and says it; all others read that and end without a word. A main
thread that waits for a frozen process cannot be woken, so the thread ends its process by itself.
"""

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch.distributed import Store  # type: ignore[attr-defined]  # it is not in __all__

from unstir.distributed.place import AGAIN, LOST, Place, named
from unstir.errors import printable

BEAT = 1.0  # seconds between two looks
SILENT = 20.0  # the longest time for which a number may stand still
SUSPECTED = 4.0  # the same where the exchange has failed, so that something is known to be wrong
GRACE = 4.0  # how long the main thread has to end by itself, which leaves a terminal in order
FAILED, ASKED = "failed", "asked"
NOTHING = " "  # of a key that has no value yet: reading one that is not there would wait for it


class Asked(Protocol):
    """What is asked to stop, by the number of a signal."""

    signal: int | None


class Verdict(NamedTuple):
    """Why the job ends, and which process says so."""

    rank: int
    text: str


class Watch(threading.Thread):
    """The thread of the process at a ``place``; ``connect()`` opens a connection of its own to the store.

    ``asked`` is what learns that another process was asked to stop, and tells of its own; ``leaving`` says that the
    job is done, so that who keeps the store may leave.
    """

    def __init__(self, place: Place, connect: Callable[[], Store]) -> None:
        super().__init__(daemon=True)
        self.asked: Asked | None = None
        self.leaving = False
        self._place, self._connect = place, connect
        self._suspicious = False
        self._verdict: Verdict | None = None
        self._found, self._over = threading.Event(), threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}

    def run(self) -> None:
        """Count, look, and end the process where the job has ended without it."""
        store = self._connect()
        for beat in itertools.count(1):
            try:
                self._verdict = self._look(store, beat)
            except RuntimeError:
                if self.leaving:
                    return
                text = f"the store of the job, at MASTER_ADDR and MASTER_PORT, does not answer {self._place}; {AGAIN}"
                self._verdict = Verdict(self._place.rank, text)
            if self._verdict is not None:
                self._found.set()
                if not self._over.wait(GRACE):
                    self._end_process(self._verdict)
            if self._over.wait(BEAT):
                return

    def suspect(self) -> Verdict | None:
        """Wait until it is known why the exchange with the others failed; None where all of them are alive."""
        self._suspicious = True
        self._found.wait(SUSPECTED + 4 * BEAT)
        return self._verdict

    def end(self) -> None:
        """Stop watching."""
        self._over.set()
        if self.is_alive():
            self.join(SILENT)

    def _look(self, store: Store, beat: int) -> Verdict | None:
        """Count up, and look what the others say: why the job ends; None where it goes on."""
        rank, size = self._place.rank, self._place.size
        store.set(alive(rank), str(beat))
        if self.asked is not None and self.asked.signal is not None:
            store.set(ASKED, str(self.asked.signal))
        others = [r for r in range(size) if r != rank] if self._suspicious else [(rank + 1) % size]
        failed, asked, *beats = (v.decode() for v in store.multi_get([FAILED, ASKED, *map(alive, others)]))
        if self.asked is not None and self.asked.signal is None and asked != NOTHING:
            self.asked.signal = int(asked)
        if failed != NOTHING:
            return _read(failed)
        if silent := self._silent(dict(zip(others, beats, strict=True))):
            which = ", ".join(named(r, size) for r in silent)
            return announce(store, rank, f"{which} was killed, is frozen or cannot be reached any more; {AGAIN}")
        return None

    def _silent(self, beats: dict[int, str]) -> list[int]:
        """The processes whose numbers stand still for longer than is allowed."""
        now, limit = time.monotonic(), SUSPECTED if self._suspicious else SILENT
        same = {r for r, beat in beats.items() if self._seen.get(r, ("", 0.0))[0] == beat}
        self._seen = {r: self._seen[r] if r in same else (beat, now) for r, beat in beats.items()}
        return [r for r, (_, since) in self._seen.items() if now - since > limit]

    def _end_process(self, verdict: Verdict) -> None:
        """End the process, with a word where it is the one that says it."""
        if verdict.rank == self._place.rank:
            cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # which a progress bar hides
            sys.stderr.write(f"{cursor}unstir: {printable(verdict.text)}\n")
            sys.stderr.flush()
        os._exit(LOST)


def alive(rank: int) -> str:
    """The key of a process's number."""
    return f"alive/{rank}"


def gone(rank: int) -> str:
    """The key that is there when a process has stopped watching, its job well done."""
    return f"gone/{rank}"


def announce(store: Store, rank: int, text: str) -> Verdict:
    """Write down why the job ends, and which process says so; or what another one has written before."""
    return _read(bytes(store.compare_set(FAILED, NOTHING, f"{rank} {text}")).decode())


def _read(written: str) -> Verdict:
    rank, _, text = written.partition(" ")
    return Verdict(int(rank), text)
