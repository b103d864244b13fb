"""Folders that are whole or absent: what a killed process leaves is removed, what a living one writes is not."""

import errno
import os
import subprocess
import sys

import pytest

from unstir.errors import UnwrittenError
from unstir.interop.folders import new_folder

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
    assert sorted(path.name for path in tmp_path.iterdir()) == [of_other.name, f"{of_other.name}.lock", "out[1]"]


def test_the_later_of_two_of_one_name_is_told_to_take_another(tmp_path):
    with pytest.raises(UnwrittenError) as error, new_folder(tmp_path / "out"):
        (tmp_path / "out" / "of another").mkdir(parents=True)
    assert error.value.errno == errno.ENOTEMPTY and error.value.filename == str(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
