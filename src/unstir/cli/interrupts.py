"""A second Ctrl-C, or SIGTERM where nothing waits to be saved, ends a command at once, whatever it is in the middle of.

Python runs its handlers of signals between two of its own operations. A pass through a network is one call of torch,
which puts them off for seconds, and two signals in the meantime count as one. The system itself writes the number of
each into a pipe as it comes (`signal.set_wakeup_fd`), where a thread waits for it.
"""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from unstir.distributed.place import place

SHOW_CURSOR = b"\x1b[?25h\n"
ENDED = b"unstir: ended at once; what was written stays, and the same command goes on or begins again\n"
_ending = threading.Lock()  # whoever has it writes that line and ends the process
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def noticed() -> Iterator[None]:
    """In this block a Ctrl-C that is not the first signal to stop ends the process at once, by `end`.

    So does SIGTERM, unless it was ignored from the start, or while a training, which saves first, has a handler for it.

    Not in one of several processes, to which torchrun repeats a signal, nor in another thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread() or place().size > 1:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_wait, args=(reading,), daemon=True)
    thread.start()
    handler = signal.getsignal(signal.SIGTERM)
    if handler == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        if handler == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(previous)
        os.write(writing, b"\0")
        thread.join()
        os.close(reading)
        os.close(writing)


def _wait(reading: int) -> None:
    asked = False
    while number := os.read(reading, 1)[0]:
        terminated = number == signal.SIGTERM and signal.getsignal(number) is _terminated
        if terminated or (number == signal.SIGINT and asked):
            end(128 + number)
        asked = asked or number in ASKING


def _terminated(number: int, _: object) -> None:
    end(128 + number)


def end(status: int) -> NoReturn:
    """End the process now, with a line, and the cursor that a progress bar has hidden. Files are whole or absent at any
    time. The line goes past Python's stream, which another thread may hold.
    """
    if _ending.acquire(timeout=0.1):  # the thread and the handler of one signal may both be here: one line is enough
        with suppress(OSError):  # the terminal may have closed
            if select.select((), (2,), (), 0)[1]:  # one that was stopped by Ctrl-S, or a full pipe, would wait
                os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + ENDED)
    os._exit(status)
