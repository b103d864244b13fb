"""The process of a tracker, started by `following`: it reads the run's folder and passes on what is new.

Its first argument is the tracker's name. It says on its output, in lines of JSON, that it is ready or what is missing,
and then what a person should know; its input is a line, the job, and its end says that nothing more will be written.
"""

import fcntl
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Protocol

from unstir.errors import REMEDIES, UserError, printable, remedy
from unstir.progress import Say
from unstir.trackers.folder import Row, Rows
from unstir.trackers.job import Job, rest_of

POLL_SECONDS = 1.0
PAUSE_SECONDS = 60.0  # until a tracker that failed is tried again
MODULES = {"tensorboard": "unstir.trackers.to_tensorboard", "wandb": "unstir.trackers.to_wandb"}


class Tracker(Protocol):
    """What takes the rows of a run: all of its history first, after which `caught_up` is called, and then the new."""

    def add(self, row: Row) -> None:
        """Take a row."""

    def caught_up(self) -> None:
        """All that was there is given."""

    def close(self) -> None:
        """There is no more; what is left is to be written."""


def serve() -> None:
    """Be the process of a tracker until the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a button of W&B sends it, to stop what is trained elsewhere
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes where errors do
    parent = os.getppid()

    def tell(**message: str) -> None:
        with suppress(OSError):  # nobody listens any more
            channel.write(json.dumps(message) + "\n")
            channel.flush()

    module = import_module(MODULES[name := sys.argv[1]])
    try:
        module.load()
    except UserError as error:
        return tell(problem=str(error))
    except Exception as error:  # of the library, which is broken
        return tell(problem=f"--log.to {name}: the library cannot be loaded: {in_words(error)}; install it anew")
    tell(problem="")
    if line := sys.stdin.readline():
        with suppress(OSError):
            os.nice(5)  # training comes first
        job, ended = Job.from_json(line), threading.Event()
        threading.Thread(target=_wait_for_end, args=(parent, ended), daemon=True).start()
        lock = _lock(job, name)
        follow(job, name, module.Tracker, ended, lambda text: tell(say=text))
        if lock is not None:
            lock.close()
    return None


def _wait_for_end(parent: int, ended: threading.Event) -> None:
    """Notice the end of the input; a copy of the parent may keep it open after the parent's own end."""
    while os.getppid() == parent:
        if select.select([0], [], [], POLL_SECONDS)[0] and not os.read(0, 1):
            break
    ended.set()


def _lock(job: Job, name: str) -> IO[str] | None:
    """Wait for the process of a training that was killed, which may still be sending its last lines.

    None on a file system that knows no locks, or takes no files, which the tracker will say.
    """
    try:
        folder = job.run / name
        folder.mkdir(exist_ok=True)
        lock = (folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return None
    return lock


def follow(job: Job, name: str, tracker_of: Callable[[Job, Say], Tracker], ended: threading.Event, say: Say) -> None:
    """Give a tracker the rows of the job's run until it has ended; one that fails is made anew after a pause.

    Of failures the first alone is said, and the one at the end, after which nothing is tried.
    """
    folder, failed = job.run / name, False
    while True:
        try:
            _check(folder)
            return _follow(job, tracker_of(job, say), ended)
        except Exception as error:  # of any library, in any state of disk and network
            why = in_words(error, folder)
            if not failed and not ended.is_set():
                say(f"{name} failed, and is tried again every minute; the run does not depend on it: {why}")
            failed = True
            if ended.wait(PAUSE_SECONDS):
                return say(f"{name} failed, and lacks the rest: {why}. {rest_of(job.run)}")


def _check(folder: Path) -> None:
    """Raise OSError where a tracker's folder takes no files, which W&B would write elsewhere without a word."""
    folder.mkdir(exist_ok=True)
    TemporaryFile(dir=folder).close()


def _follow(job: Job, tracker: Tracker, ended: threading.Event) -> None:
    try:
        rows, history = Rows(job.run, job.snapshots), True
        while True:
            last = ended.is_set()  # before the files are read
            for row in rows.new(last):
                tracker.add(row)
            if history:
                tracker.caught_up()
                history = False
            if last:
                break
            ended.wait(POLL_SECONDS)
    except Exception:
        with suppress(Exception):
            tracker.close()
        raise
    tracker.close()


def in_words(error: Exception, folder: Path | None = None) -> str:
    """An exception as a part of a line: of a library, or of what is written to a tracker's ``folder``."""
    if isinstance(error, UserError) and isinstance(error.__context__, OSError):
        error = error.__context__  # the remedy of a UserError is that of a command, which would end
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in REMEDIES:
        where = f"{printable(folder)}: " if folder else ""
        return where + remedy(error, "it must be a folder that can be written to" if folder else "")
    text = " ".join(printable(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
