"""Ctrl-C, twice too, and SIGTERM at random instants: it ends in time, and the same command goes on as if it had not."""

import ctypes
import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from conftest import tiny_config
from processes import Command
from test_sample_killed import hashes
from tiers import SEED, proven, times
from train.test_resume import assert_same, outcome
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.toml import to_toml

pytestmark = pytest.mark.slow

SIGNALS = times(1, 20)
LIMITS = 20.0, 5.0  # seconds after the last of one signal, or of two, on a machine that has other work too
CASES = {"Ctrl-C": (signal.SIGINT,), "SIGTERM": (signal.SIGTERM,), "Ctrl-C twice": (signal.SIGINT, signal.SIGINT)}
LIFE = 0.8  # seconds at most of the first life; each is longer than the one before, or none would finish
SUBREAPER = 36  # of prctl: whose parent has ended becomes a child of this process


@pytest.fixture
def orphans():
    """orphans() -> the processes that a child of this one has left behind."""
    prctl, children = ctypes.CDLL(None).prctl, Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    assert prctl(SUBREAPER, 1) == 0
    yield lambda: set(children.read_text().split()) - set(before)
    prctl(SUBREAPER, 0)


def ended(child, numbers):
    """The exit status of a command that is sent signals, a moment apart, and the seconds after the last of them."""
    for number in numbers[:-1]:
        child.send_signal(number)
        time.sleep(0.02)
    child.send_signal(numbers[-1])
    began = time.monotonic()
    return child.wait(60), time.monotonic() - began


def disturbed(words, out, numbers, chance, orphans):
    """Run a command to its end, with signals on the way; the seconds that it went on after those that ended it."""
    seconds, err = [], out.with_suffix(".err")
    for life in itertools.count():
        err.unlink(missing_ok=True)
        child = Command(words, out.parent, err=err)
        while not err.exists():  # it is about to begin
            time.sleep(0.001)
        until = time.monotonic() + chance.uniform(0.02, LIFE * (1 + life / 2))
        while time.monotonic() < until and child.poll() is None:
            time.sleep(0.005)
        status, took = ended(child, numbers)
        said = err.read_text()
        assert "Traceback" not in said.partition("Exception ignored in")[0], said  # which is Python's own, of a __del__
        assert not orphans()
        if status == 0:
            break
        assert status in (128 + numbers[0], -numbers[0]), said  # -15 before there is anything to be saved
        seconds.append(took)
    return seconds


def in_time(seconds, numbers, what):
    assert max(seconds) < LIMITS[len(numbers) - 1], seconds
    median, slowest = sorted(seconds)[len(seconds) // 2], max(seconds)
    proven(f"{what} (ended in {median:.2f} s, {slowest:.2f} s at most)", len(seconds))


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_as_if_it_had_not_been_stopped(case, digits, trained, tmp_path, orphans):
    whole, _ = trained("whole")
    (tmp_path / "tiny.toml").write_text(to_toml(tiny_config(digits)))
    seconds, chance = [], random.Random(SEED)
    while len(seconds) < SIGNALS:
        out = tmp_path / f"stopped-{len(seconds)}"
        seconds += disturbed(["train", tmp_path / "tiny.toml", "--out", out], out, CASES[case], chance, orphans)
        assert_same(outcome(Run.open(out)), outcome(whole))
        assert checkpoint.newest(Run.open(out).checkpoints)[1] == {} and not list(out.rglob("*.partial"))
    in_time(seconds, CASES[case], f"{case} while training")


@pytest.mark.parametrize("case", CASES)
def test_sampling_goes_on_as_if_it_had_not_been_stopped(case, run, command, tmp_path, orphans):
    words = ["sample", run.path, "--num", 32, "--batch-size", 8, "--steps", 10, "--out"]
    assert command(*words, tmp_path / "whole")[0] == 0
    seconds, chance = [], random.Random(SEED)
    while len(seconds) < SIGNALS:
        out = tmp_path / f"stopped-{len(seconds)}"
        seconds += disturbed([*words, out], out, CASES[case], chance, orphans)
        assert hashes(out) == hashes(tmp_path / "whole") and not list(out.glob(".*"))
    in_time(seconds, CASES[case], f"{case} while sampling")
