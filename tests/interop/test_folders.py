"""Folders that are whole or absent: what a killed process leaves is removed, what a living one writes is not."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from unstir.errors import UnwrittenError
from unstir.interop.folders import new_folder
from unstir.runs.files import locked

WRITER = """
import sys
from pathlib import Path
from unstir.interop.folders import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "part").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """writer(name) -> a process that is writing the folder of this name, and where it does so."""
    started = []

    def start(name):
        command = [sys.executable, "-c", WRITER, str(tmp_path / name)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, tmp_path / process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_process_left_is_removed_by_the_next_of_its_name(tmp_path, writer):
    killed, left = writer("out[1]")
    other, of_other = writer("other")
    alive, of_alive = writer("out[1]")
    for process in (killed, other):
        process.kill()
        process.wait()
    assert (left / "part").exists() and left.parent == tmp_path and left.name.startswith(".out[1].")
    with new_folder(tmp_path / "out[1]") as folder:
        (folder / "whole").touch()
    assert not left.exists() and (of_alive / "part").exists() and (of_other / "part").exists()
    assert [path.name for path in (tmp_path / "out[1]").iterdir()] == ["whole"]
    alive.communicate()  # its folder is taken, by one that is not empty
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([of_other.name, "out[1]"])


def test_a_lock_on_the_folder_around_it_is_not_waited_for(tmp_path):
    """As where `flock FOLDER unstir export ...` keeps a job of a queue from running twice."""
    with locked(tmp_path):
        process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "out"], stdin=subprocess.DEVNULL)
        try:
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def slow(file, how):
        if not calls:
            os.rmdir(next(tmp_path.glob(".out.*.partial")))  # as `_remove_partials` of another process may
        calls.append(how)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"] and len(calls) == 2


def test_without_locks_it_is_written_and_nothing_is_removed(tmp_path, monkeypatch):
    left = tmp_path / ".out.01234567.partial"
    left.mkdir()  # its writer may live
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (_ for _ in ()).throw(OSError(errno.ENOLCK, "none")))
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, "out"]


def test_the_later_of_two_of_one_name_is_told_to_take_another(tmp_path):
    with pytest.raises(UnwrittenError) as error, new_folder(tmp_path / "out"):
        (tmp_path / "out" / "of another").mkdir(parents=True)
    assert error.value.errno == errno.ENOTEMPTY and error.value.filename == str(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
