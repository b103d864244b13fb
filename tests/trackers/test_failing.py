"""Trackers that cannot work: folders that take no files, and libraries that are missing or broken."""

import threading

import pytest
from trackers_read import BOTH

from conftest import tiny_config
from unstir.errors import UserError
from unstir.runs.files import write_text
from unstir.trackers import serve
from unstir.trackers.job import Job
from unstir.train.launch import train_run

pytest.importorskip("tensorboard", reason="what is tested: pip install '.[tensorboard]'")
pytest.importorskip("wandb", reason="what is tested: pip install '.[wandb]'")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("reason", ["Permission denied", "File exists"])
def test_a_folder_that_takes_no_files_is_named_at_once_and_at_the_end(tmp_path, monkeypatch, name, reason):
    """W&B would write to another folder, and say nothing."""
    folder, tries, said, ended = tmp_path / name, [], [], threading.Event()
    check = serve._check

    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir / "made"))

    def checked(folder):
        tries.append(folder)
        ended.set() if len(tries) == 3 else None
        check(folder)

    def never(*_):
        raise AssertionError("it was made")

    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(serve, "_check", checked)
    monkeypatch.setattr(serve, "TemporaryFile", refuse)
    folder.write_text("") if reason == "File exists" else None
    serve.follow(Job(tmp_path, {}, tmp_path / "none"), name, never, ended, said.append)
    why = f"{folder}: {reason}; it must be a folder that can be written to"
    assert said == [
        f"{name} failed, and is tried again every minute; the run does not depend on it: {why}",
        f"{name} failed, and lacks the rest: {why}. "
        f"unstir report {tmp_path} --no-measure, or continuing the run, gives it the rest",
    ]
    assert tries == [folder] * 3


def test_a_refusal_of_ours_to_write_is_told_as_the_systems_reason(tmp_path):
    """Its own remedy, to run the command again, is of a command that ends."""
    with pytest.raises(UserError) as refused:
        write_text(tmp_path / "none/id", "1")
    text = serve.in_words(refused.value, tmp_path)
    assert text == f"{tmp_path}: No such file or directory; it must be a folder that can be written to"


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        (
            "raise ModuleNotFoundError(__name__)",
            "needs tensorboard.* which is not installed; .* pip install '..tensorb",
        ),
        ("raise TypeError('descriptors')", "tensorboard: the library cannot be loaded: TypeError: descriptors"),
        ("import os; os._exit(7)", "tensorboard: its process ended with status 7"),
    ],
)
def test_a_library_that_is_missing_or_broken_is_refused_before_anything_is_made(
    digits, tmp_path, monkeypatch, planted, says
):
    (tmp_path / "planted/tensorboard").mkdir(parents=True)
    (tmp_path / "planted/tensorboard/__init__.py").write_text(planted)
    monkeypatch.syspath_prepend(tmp_path / "planted")
    with pytest.raises(UserError, match=says):
        train_run(tiny_config(digits, log__to=["tensorboard"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
