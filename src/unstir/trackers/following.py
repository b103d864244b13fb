"""The processes of trackers, as training sees them: loaded before it begins, told of a run, and ended after it."""

import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Self

from unstir.child import start
from unstir.distributed import processes
from unstir.errors import UserError
from unstir.progress import Say
from unstir.runs.run import Run
from unstir.runs.timetable import all_snapshots
from unstir.trackers.job import Job, rest_of

PROGRAM = "from unstir.trackers.serve import serve; serve()"
LOAD_SECONDS = 120.0  # for the imports of a library
WAIT_SECONDS = 60.0  # for what is left at the end
SHARED_SECONDS = 10.0  # the same where a training fails whose other processes wait to be told
SILENT_SECONDS = 3.0  # of these, without a word


class Trackers:
    """The processes of the trackers of these ``names``, in a context that ends them.

    Entering it waits until each has its library. Raises UserError where one is missing or cannot be loaded.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._processes, self._left = names, dict[str, Popen[bytes]](), list[str]()

    def __enter__(self) -> Self:
        try:
            for name in self._names:
                self._processes[name] = start(PROGRAM, name, group=True)
            for name, process in self._processes.items():
                if problem := _problem(name, process):
                    raise UserError(problem)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            _kill(process)
            with suppress(OSError), process:  # closes the pipes and waits
                pass

    @contextmanager
    def following(self, run: Run, say: Say, page: Path | None = None) -> Iterator[None]:
        """A context in which the trackers follow what is written in a run's folder; at its end they get the rest.

        That takes `WAIT_SECONDS` at most, and of several processes where this one fails `SHARED_SECONDS`. ``say`` is
        called, from a thread, with what a person should know. What a tracker sends as the page of the run is ``page``,
        by default RUN/report.html, if it is there.
        """
        job = Job(run.path.absolute(), all_snapshots(run), (page or run.path / "report.html").absolute())
        threads = [
            threading.Thread(target=self._listen, args=(*each, run.path, say), daemon=True)
            for each in self._processes.items()
        ]
        for process, thread in zip(self._processes.values(), threads, strict=True):
            with suppress(OSError):  # one that has died is noticed by whoever listens
                assert process.stdin
                process.stdin.write(job.to_json().encode() + b"\n")
                process.stdin.flush()
            thread.start()
        most = WAIT_SECONDS if processes.size() == 1 else SHARED_SECONDS
        try:
            yield
            most = WAIT_SECONDS
        finally:
            self._end(run, say, most)
            for thread in threads:
                thread.join()

    def _end(self, run: Run, say: Say, most: float) -> None:
        """Close the input of all, wait for them together, ``most`` seconds, and end those that take longer."""
        for process in self._processes.values():
            with suppress(OSError):
                assert process.stdin
                process.stdin.close()
        began = time.monotonic()
        for until in (SILENT_SECONDS, most):
            for process in self._processes.values():
                with suppress(TimeoutExpired):
                    process.wait(max(until - (time.monotonic() - began), 0))
            left = [name for name, process in self._processes.items() if process.poll() is None]
            if left and until == SILENT_SECONDS:
                say(f"waiting for {' and '.join(left)} to take what is left, {most:.0f} s at most")
        self._left = left  # whose end is no crash
        for name in left:
            _kill(self._processes[name])
            say(f"{name} took longer than {most:.0f} s to take what was left and was ended: {rest_of(run.path)}")

    def _listen(self, name: str, process: Popen[bytes], run: Path, say: Say) -> None:
        """Pass on what a tracker says until its end, and say so where it crashed."""
        assert process.stdout
        for line in process.stdout:
            if line.endswith(b"\n"):  # one that is killed may leave half a line
                say(json.loads(line)["say"])
        if (status := process.wait()) and name not in self._left:
            say(f"{name} ended with status {status}; the run goes on without it. When it has ended, {rest_of(run)}")


def send(run: Run, page: Path, say: Say) -> None:
    """Give the trackers that have followed a run its ``page`` and what else they lack.

    A run that is being trained is left alone: its trackers send RUN/report.html at the end. ``say`` is called with
    what hinders a tracker, which is no error.
    """
    names = [name for name in run.config.log.to if (run.path / name).is_dir()]
    if not names:
        return
    try:
        with run.lock(), Trackers(names) as trackers, trackers.following(run, say, page):
            pass
    except UserError as error:
        say(f"{' and '.join(names)} did not get what is new: {error}")


def _problem(name: str, process: Popen[bytes]) -> str:
    """Why a tracker cannot be used; "" where it is ready."""
    assert process.stdout
    if not select.select([process.stdout], [], [], LOAD_SECONDS)[0]:
        return f"--log.to {name}: {name} was not loaded within {LOAD_SECONDS:.0f} s; leave it out, or try again"
    line = process.stdout.readline()
    if not line:
        return f"--log.to {name}: its process ended with status {process.wait()}; leave it out, or install it anew"
    return str(json.loads(line)["problem"])


def _kill(process: Popen[bytes]) -> None:
    """End a process, if it runs, and those of its group."""
    if process.poll() is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
