"""The processes of trackers, as training sees them, with programs in their place that crash, hang or refuse."""

import json
import threading
from types import SimpleNamespace

import pytest

from unstir.errors import UserError
from unstir.trackers import following
from unstir.trackers.following import Trackers
from unstir.trackers.job import Job

READY = """
import json, os, sys, time
print(json.dumps({"problem": ""}), flush=True)
job = sys.stdin.readline()
"""


def crash(run):
    """What is said of one that ended with status 9."""
    rest = f"unstir report {run.path} --no-measure, or continuing the run, gives it the rest"
    return f"wandb ended with status 9; the run goes on without it. When it has ended, {rest}"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "all_snapshots", lambda run: {0: "start", 7: "images-00000448"})
    return SimpleNamespace(path=tmp_path)


def followed(run, monkeypatch, program, names=("wandb",)):
    """What is said of a run followed by a program, and the processes, which have ended."""
    monkeypatch.setattr(following, "PROGRAM", program)
    said = []
    with Trackers(names) as trackers, trackers.following(run, said.append):
        pass
    processes = list(trackers._processes.values())
    assert all(process.poll() is not None for process in processes)
    return said, [process.returncode for process in processes]


def test_a_tracker_is_given_the_run_with_its_snapshots_and_its_page(run, monkeypatch):
    said, statuses = followed(run, monkeypatch, f"{READY}\nprint(json.dumps({{'say': job}}))", ("tensorboard", "wandb"))
    wanted = Job(run.path, {0: "start", 7: "images-00000448"}, run.path / "report.html")
    assert [Job.from_json(text) for text in said] == [wanted, wanted] and statuses == [0, 0]
    assert json.loads(wanted.to_json())["run"] == str(run.path)


def test_one_that_crashes_is_said_once_and_changes_nothing_else(run, monkeypatch):
    monkeypatch.setattr(following, "PROGRAM", f"{READY}\nos._exit(9)")
    said = []
    with Trackers(["wandb"]) as trackers, trackers.following(run, said.append):
        trackers._processes["wandb"].wait()
    assert said == [crash(run)]


def test_one_that_crashes_at_the_end_is_said_too(run, monkeypatch):
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.1)
    said, (status,) = followed(run, monkeypatch, f"{READY}\nsys.stdin.read(); time.sleep(0.5); os._exit(9)")
    assert status == 9 and said[1:] == [crash(run)]


def test_one_that_does_not_end_is_waited_for_and_then_ended(run, monkeypatch):
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.3)
    said, (status,) = followed(run, monkeypatch, f"{READY}\ntime.sleep(600)")
    assert status == -9 and len(said) == 2
    assert said[0].startswith("waiting for wandb to take what is left")
    assert f"unstir report {run.path} --no-measure" in said[1]


def test_one_that_does_not_end_keeps_other_processes_waiting_for_a_failure_only_shortly(run, monkeypatch):
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(following, "SHARED_SECONDS", 0.3)
    monkeypatch.setattr(following.processes, "size", lambda: 2)
    monkeypatch.setattr(following, "PROGRAM", f"{READY}\ntime.sleep(600)")
    said = []
    with pytest.raises(ZeroDivisionError), Trackers(["wandb"]) as trackers, trackers.following(run, said.append):
        raise ZeroDivisionError
    assert trackers._processes["wandb"].returncode == -9 and len(said) == 2


def test_what_one_says_while_it_is_ended_and_half_a_line_are_no_error(run, monkeypatch):
    """An exception in the thread that listens would be an error of this test, and a traceback for a user."""
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(
        following, "PROGRAM", f"{READY}\nprint(json.dumps({{'say': 'last'}}), flush=True); time.sleep(600)"
    )
    said, ended = [], threading.Event()

    def say(text):
        said.append(text)
        if text == "last":
            assert ended.wait(60)
        ended.set() if "was ended" in text else None

    with Trackers(["wandb"]) as trackers, trackers.following(run, say):
        pass
    assert [text.split()[0] for text in said] == ["last", "waiting", "wandb"]
    said, _ = followed(run, monkeypatch, f'{READY}\nos.write(1, b\'{{"say": "cut\'); os._exit(9)')
    assert said == [crash(run)]


def test_where_one_is_refused_the_others_end_too(monkeypatch):
    program = 'import sys; print(\'{"problem": "%s"}\' % sys.argv[1][5:], flush=True); sys.stdin.read()'
    monkeypatch.setattr(following, "PROGRAM", program)
    trackers = Trackers(["first", "wandb it is not there", "third"])
    with pytest.raises(UserError, match="^ it is not there$"), trackers:
        raise AssertionError("it was entered")
    assert all(process.poll() is not None for process in trackers._processes.values())


def test_one_that_says_nothing_is_refused_after_a_while(monkeypatch):
    monkeypatch.setattr(following, "PROGRAM", "import time; time.sleep(600)")
    monkeypatch.setattr(following, "LOAD_SECONDS", 0.2)
    with pytest.raises(UserError, match="wandb was not loaded within 0 s"), Trackers(["wandb"]):
        pass
