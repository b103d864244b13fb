"""Where one process of a job is killed, freezes, fails or is asked to stop, all end, and one of them says why."""

import os
import signal
import socket
import sys
import time

import pytest

from together import Together
from unstir.distributed import join, processes
from unstir.distributed.join import joined
from unstir.distributed.place import LOST, LostError, may_speak
from unstir.errors import UserError

LIMIT = 30.0  # seconds until the others have ended, with the real seconds of the watch


def end(error, status):
    """As the command line does."""
    if may_speak(""):
        print(f"unstir: {error}", file=sys.stderr)
    sys.exit(status)


def work(happens, at=1):
    """Exchange for long; to the process ``at`` something happens."""

    def exchanging(rank):
        try:
            with joined("cpu"):
                for turn in range(10_000):
                    if (rank, turn) == (at, 3):
                        happens()
                    processes.wait_for_all()
                    time.sleep(0.01)
        except LostError as error:
            end(error, LOST)
        except (UserError, MemoryError) as error:
            end(error, 2)

    return exchanging


def fail(error):
    raise error


def lines(job):
    return [line for line in job.said().splitlines() if line.startswith("unstir: ")]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_that_is_killed_ends_the_others_with_one_line(tmp_path, quick_watch, at):
    job = Together(3, work(lambda: os.kill(os.getpid(), signal.SIGKILL), at), tmp_path)
    statuses = job.wait(LIMIT)
    assert statuses.pop(at) == -signal.SIGKILL and statuses == [LOST, LOST]
    if at == 0:  # it keeps the store, as torchrun does elsewhere: no one is left to name it
        assert all("does not answer" in line or "broke" in line or "was killed" in line for line in lines(job))
        return
    (line,) = lines(job)
    assert f"process {at} of 3" in line and "was killed, is frozen or cannot be reached" in line
    assert "the same command goes on from what is saved" in line


def test_one_that_freezes_ends_the_others_though_they_wait_for_it(tmp_path, quick_watch):
    job = Together(3, work(lambda: os.kill(os.getpid(), signal.SIGSTOP)), tmp_path)
    deadline = time.monotonic() + LIMIT
    while job.statuses[0] is None or job.statuses[2] is None:
        assert time.monotonic() < deadline
        job.poll()
        time.sleep(0.02)
    job.kill()
    assert job.statuses[0] == job.statuses[2] == LOST
    (line,) = lines(job)
    assert "process 1 of 3" in line and "is frozen" in line


def test_one_that_fails_says_so_itself_and_the_others_are_silent(tmp_path, quick_watch):
    error = MemoryError("out of memory: 3 GB more were asked for")
    job = Together(3, work(lambda: fail(error), at=2), tmp_path)
    assert job.wait(LIMIT) == [LOST, LOST, 2]
    assert lines(job) == [f"unstir: {error}"]


def test_what_all_refuse_is_said_once(tmp_path, quick_watch):
    def refuse(rank):
        try:
            with joined("cpu"):
                raise UserError("lr=-1 must be positive")
        except UserError as error:
            end(error, 2)

    job = Together(3, refuse, tmp_path)
    assert job.wait(LIMIT) == [2, 2, 2]
    assert lines(job) == ["unstir: lr=-1 must be positive"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "digits", "--train.lr", "much"), "train.lr"),
        (("evaluate", "nowhere"), "unstir evaluate is the work of one process; start it without torchrun"),
        (("likelihood", "nowhere"), "unstir likelihood is the work of one process; start it without torchrun"),
        (("doctor", "nowhere"), "unstir doctor is the work of one process; start it without torchrun"),
        (("sample", "nowhere", "--compare", "ddim:2"), "unstir sample --compare is the work of one process"),
    ],
)
def test_what_is_refused_before_they_meet_is_said_once(tmp_path, words, said):
    from torch.distributed import TCPStore

    from unstir import cli

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def refused(rank):
        os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True", MASTER_PORT=str(port))
        cli.main(words)

    job = Together(3, refused, tmp_path)
    # As torchrun keeps it. Its thread begins after the copies are made: a copy keeps the locks that are held just then.
    store = TCPStore("127.0.0.1", port, is_master=True, master_listen_fd=listening.detach())
    assert job.wait(LIMIT) == [2, 2, 2]
    del store
    (line,) = lines(job)
    assert said in line


def test_a_long_silence_of_the_first_is_no_death(tmp_path, quick_watch):
    def slow(rank):
        with joined("cpu"):
            if rank == 0:
                time.sleep(4.0)  # longer than SILENT; as long as its thread counts, it is waited for
            processes.wait_for_all()
            return rank

    assert Together(2, slow, tmp_path).results() == [0, 1]


def test_one_that_does_not_come_is_named(tmp_path, monkeypatch):
    from datetime import timedelta

    monkeypatch.setattr(join, "GATHERING", timedelta(seconds=2))

    def late(rank):
        if rank == 1:
            return
        try:
            with joined("cpu"):
                return
        except UserError as error:
            end(error, 2)

    job = Together(3, late, tmp_path)
    statuses = job.wait(LIMIT)
    assert statuses[1] == 0 and statuses[0] == 2
    assert any("process 1 of 3 (counted from 0) did not come" in line for line in lines(job))


def test_who_was_asked_to_stop_tells_the_others(tmp_path, quick_watch):
    class Asked:
        signal = None

    def ask(rank):
        asked = Asked()
        with joined("cpu"):
            processes.follow(asked)
            if rank == 2:
                asked.signal = 15
            deadline = time.monotonic() + LIMIT
            while asked.signal is None and time.monotonic() < deadline:
                time.sleep(0.02)
            return asked.signal

    assert Together(3, ask, tmp_path).results() == [15, 15, 15]


def test_sigterm_ends_a_process_that_handles_it_not_and_is_handled_as_before_afterwards(tmp_path, quick_watch):
    def term(rank):
        with joined("cpu"):
            pass
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with joined("cpu"):  # a second group by the same launcher
            assert processes.of_all(rank) == [0, 1]
            if rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            processes.wait_for_all()
            time.sleep(5)

    job = Together(2, term, tmp_path)
    first, second = job.wait(LIMIT)
    assert second == 128 + signal.SIGTERM and first in (LOST, 1)
