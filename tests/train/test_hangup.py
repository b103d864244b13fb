"""A terminal that closes, as with an ssh connection: training saves and leaves, unless it runs under nohup."""

import os
import pty
import select
import signal
import subprocess
import sys

import pytest

from processes import Command, until
from tiny_command import tiny
from unstir.jobs.process import Signals
from unstir.runs.run import Run

pytestmark = pytest.mark.slow

WORDS = ["train", "digits", *tiny("100000 steps", log="1 step", checkpoint="100000 steps")]


def lines(folder):
    file = folder / "runs/digits/metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


@pytest.fixture
def started(tmp_path):
    """started(make) -> the process of a training that has taken steps, as make() began it; it is killed at the end.

    Until then meanwhile() is called now and then.
    """
    children = []

    def start(make, meanwhile=lambda: None):
        children.append(make())
        until(lambda: meanwhile() or lines(tmp_path) > 3 or children[-1].poll() is not None, 90)
        assert children[-1].poll() is None
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()


def saved_everything(folder):
    run = Run.open(folder / "runs/digits")
    assert run.newest_step() == len(run.metrics()) == run.metrics()[-1]["step"] >= 4
    assert (run.path / "events.jsonl").read_text().splitlines()[-1].startswith('{"event": "stopped"')


def test_a_hangup_saves_and_says_so_where_it_can(tmp_path, started):
    child = started(lambda: Command(WORDS, tmp_path, out=tmp_path / "out"))
    child.send_signal(signal.SIGHUP)
    assert child.wait(timeout=60) == 129 and "command continues" in (tmp_path / "out").read_text()
    saved_everything(tmp_path)


def test_a_terminal_that_closes_ends_training_with_all_saved(tmp_path, started):
    master, terminal = pty.openpty()

    def take_the_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests themselves run under nohup
        os.setsid()
        os.close(os.open(os.ttyname(terminal), os.O_RDWR))  # the first one opened controls the session

    words, streams = [sys.executable, "-m", "unstir", *WORDS], dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    drawn = []

    def read():  # or the terminal would be full, on a slow machine before there is a step, and its writer would wait
        if select.select((master,), (), (), 0)[0]:
            drawn.append(os.read(master, 1 << 16))

    child = started(lambda: subprocess.Popen(words, cwd=tmp_path, preexec_fn=take_the_terminal, **streams), read)
    os.close(terminal)
    assert drawn
    os.close(master)  # whereupon the kernel sends SIGHUP, and writing to the terminal is an error
    assert child.wait(timeout=60) == 129
    saved_everything(tmp_path)


def test_what_is_written_to_a_terminal_that_has_closed_is_dropped():
    """Where no signal has come yet, as in the moment between the two, or where the command handles none."""
    master, slave = pty.openpty()
    program = (
        "import sys; from unstir.jobs.process import prepare_terminal; prepare_terminal(); print('ready', flush=True);"
    )
    program += "sys.stdin.read(); print('on', flush=True); print('on', file=sys.stderr, flush=True); sys.exit(7)"
    how = {"stdin": subprocess.PIPE, "stdout": slave, "stderr": slave}
    child = subprocess.Popen([sys.executable, "-c", program], **how)
    os.close(slave)
    assert os.read(master, 5) == b"ready"
    os.close(master)
    child.stdin.close()
    assert child.wait(timeout=60) == 7


def test_under_nohup_training_goes_on(tmp_path, started):
    child = started(lambda: Command(WORDS, tmp_path, handlers={signal.SIGHUP: signal.SIG_IGN}))
    child.send_signal(signal.SIGHUP)
    now = lines(tmp_path)
    until(lambda: lines(tmp_path) > now + 20 or child.poll() is not None)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=60) == 143
    saved_everything(tmp_path)


def test_a_terminal_that_is_left_hears_neither_output_nor_errors_and_a_file_goes_on(tmp_path):
    outcomes = []
    for errors in (None, tmp_path / "errors.txt"):
        _, terminal = pty.openpty()
        child = os.fork()
        if child == 0:
            os.dup2(terminal, 1)
            os.dup2(terminal if errors is None else os.open(errors, os.O_CREAT | os.O_WRONLY), 2)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            with Signals():
                os.kill(os.getpid(), signal.SIGHUP)
            gone = [os.path.samestat(os.fstat(each), os.stat(os.devnull)) for each in (1, 2)]
            os._exit(10 * gone[0] + gone[1])
        outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert outcomes == [11, 10]
