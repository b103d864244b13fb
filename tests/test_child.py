"""A program started in a process of its own finds the modules that this process finds, in the same order."""

import sys
from pathlib import Path

import unstir
from unstir.data.decoding import start

PROGRAM = "import here, unstir; print(here.__file__, unstir.__file__, sep='\\n')"


def found(program=PROGRAM):
    with start(program) as process:
        return process.communicate()[0].decode().splitlines()


def test_a_child_finds_what_this_process_finds_first(tmp_path, monkeypatch):
    package = Path(unstir.__file__).parents[1]
    for name in ("first", "current"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here.py").write_text("")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "first"), *sys.path])
    assert found() == [str(tmp_path / "first/here.py"), str(package / "unstir/__init__.py")]
    (tmp_path / "other/unstir").mkdir(parents=True)  # another version, and this one was found in the current folder
    (tmp_path / "other/unstir/__init__.py").write_text("")
    rest = [path for path in sys.path[1:] if Path(path) != package]
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "other"), *rest])
    assert found()[1] == str(package / "unstir/__init__.py")
