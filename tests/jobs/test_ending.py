"""Where one process of a job is killed, fails or is asked to stop, all end; and one of them says why."""

import logging
import os
import signal
import sys
import time
from datetime import timedelta

import pytest
import torch

import together
from together import Together
from unstir import cli, torchrun_group
from unstir.errors import UserError
from unstir.group import LostError
from unstir.jobs.process import LOST, may_speak

BRIEF = timedelta(seconds=2)
LIMIT = 30.0  # seconds until the others have ended


def end(error, status):
    """As the command line does."""
    if may_speak(status == LOST):
        print(f"unstir: {error}", file=sys.stderr)
    sys.exit(status)


def work(happens, at=1):
    """Exchange for long; to the process ``at`` something happens."""

    def exchanging(rank):
        try:
            with torchrun_group("cpu") as group:
                for turn in range(10_000):
                    if (rank, turn) == (at, 3):
                        happens()
                    group.check_alike({"weight": torch.zeros(1)}, "")
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


@pytest.mark.parametrize(("at", "keeps_store"), [(0, True), (2, True), (0, False)])
def test_one_that_is_killed_ends_the_others_with_one_line(tmp_path, at, keeps_store):
    """Without torchrun the store goes with the first process, and each of the others has its line."""
    job = Together(3, work(lambda: os.kill(os.getpid(), signal.SIGKILL), at), tmp_path, keeps_store)
    statuses = job.wait(LIMIT)
    assert statuses.pop(at) == -signal.SIGKILL and statuses == [LOST, LOST]
    said = lines(job)
    assert all("was lost" in line for line in said) and len(said) in ((1,) if keeps_store else (1, 2))


def test_who_waits_in_the_store_for_one_that_is_killed_is_ended_by_torchrun(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "PATIENCE", 0.5)

    def waiting(rank):
        with torchrun_group("cpu") as group:
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            group.of_all(None)

    assert Together(3, waiting, tmp_path).wait(LIMIT) == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM]


def test_one_that_fails_says_so_itself_and_the_others_are_silent(tmp_path):
    error = MemoryError("out of memory: 3 GB more were asked for")
    job = Together(3, work(lambda: fail(error), at=2), tmp_path)
    assert job.wait(LIMIT) == [LOST, LOST, 2] and lines(job) == [f"unstir: {error}"]


def test_what_all_refuse_is_said_once(tmp_path):
    refused = UserError("lr", -1, "is negative")

    def refuse(rank):
        try:
            with torchrun_group("cpu"):
                raise refused
        except UserError as error:
            end(error, 2)

    job = Together(3, refuse, tmp_path)
    assert job.wait(LIMIT) == [2, 2, 2] and lines(job) == [f"unstir: {refused}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "digits", "--train.lr", "much"), "train.lr"),
        (("doctor", "nowhere"), "unstir doctor is the work of one process; start it without torchrun"),
        (("sample", "nowhere", "--compare", "ddim:2"), "unstir sample --compare is the work of one process"),
    ],
)
def test_what_is_refused_before_they_meet_is_said_once(tmp_path, words, said):
    job = Together(3, lambda rank: cli.main(words), tmp_path)
    assert job.wait(LIMIT) == [2, 2, 2]
    (line,) = lines(job)
    assert said in line


def test_the_others_wait_for_work_of_the_first_longer_than_the_timeout(tmp_path):
    def slow(rank):
        with torchrun_group("cpu", BRIEF) as group:
            if rank == 0:
                time.sleep(3)
            group.of_first(None)
            return group.of_all(rank)

    assert Together(2, slow, tmp_path).results() == [[0, 1], [0, 1]]


def test_one_that_does_not_answer_ends_the_job_at_the_timeout(tmp_path):
    def late(rank):
        try:
            with torchrun_group("cpu", BRIEF) as group:
                if rank == 1:
                    time.sleep(3)
                group.vote(None)
                group.voted()
        except LostError as error:
            end(error, LOST)

    job = Together(2, late, tmp_path)
    assert job.wait(LIMIT) == [LOST, LOST]
    assert "was lost" in lines(job)[0]


def test_one_that_does_not_come_ends_the_others_at_the_timeout(tmp_path):
    def late(rank):
        if rank == 1:
            return
        logging.basicConfig(level=logging.INFO, force=True)
        try:
            with torchrun_group("cpu", BRIEF):
                return
        except UserError as error:
            end(error, 2)

    job = Together(3, late, tmp_path)
    assert job.wait(LIMIT) == [2, 0, 2]
    (line,) = lines(job)
    assert "by 127.0.0.1" in line and job.said().count("2 other processes") == 2


def test_a_second_group_by_the_same_launcher(tmp_path):
    def twice(rank):
        with torchrun_group("cpu"):
            pass
        with torchrun_group("cpu") as group:
            return group.of_all(rank)

    assert Together(2, twice, tmp_path).results() == [[0, 1], [0, 1]]
