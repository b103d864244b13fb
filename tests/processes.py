"""The command line in a child that is a copy of this process: without the seconds that Python needs to import torch.

For what becomes of a command that is signalled or killed. How a command starts is for tests that start Python anew.
"""

import os
import resource
import signal
import subprocess
import sys
import time
import traceback

from unstir import cli
from unstir.errors import OutOfMemoryError
from unstir.runs import resources


def until(holds, seconds=60.0):
    """Wait until ``holds()``, and fail where that takes longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
"""What a shell's child does with signals, however the tests themselves were started."""


class Command:
    """`unstir` with these words in the folder ``cwd``, its output in files: as `subprocess.Popen`, as far as needed."""

    def __init__(self, words, cwd, out=os.devnull, err=os.devnull, handlers=None):
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _run([str(word) for word in words], cwd, (out, err), {**USUAL, **(handlers or {})})
            finally:
                os._exit(70)  # never back into the tests

    def poll(self):
        """The exit status, or the negative number of the signal that ended it; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=60):
        """As `poll`, when it has ended. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("unstir", timeout)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number):
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _run(words, cwd, files, handlers):
    """Be the command, and end with its exit status."""
    status = 1
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.chdir(cwd)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    try:
        cli.main(words)
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def in_a_child(function, room=None):
    """What a function returns, or the error of a user that it raises, as text, in a process with so many bytes more."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            if room:
                most = resources._of("/proc/self/status", "VmData") + room
                resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            text = str(function())
        except OutOfMemoryError as error:
            text = f"OutOfMemoryError: {error}"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text
