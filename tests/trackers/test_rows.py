"""What a tracker is given, and when; and what becomes of one that fails."""

import subprocess
import sys
import threading

import pytest

from unstir.errors import UserError
from unstir.runs.lines import append
from unstir.runs.sections import LogConfig
from unstir.trackers import serve
from unstir.trackers.folder import Rows
from unstir.trackers.job import Job


def metrics(folder, step, **more):
    append(folder / "metrics.jsonl", {"step": step, "seconds": step / 10, "loss": 1 / step, **more})


def held_out(folder, step):
    append(folder / "held_out.jsonl", {"step": step, "held_out": [1.0, 3.0], "train": None, "bits": 2.5, "times": [1]})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "samples").mkdir()
    return tmp_path


def test_a_row_is_given_once_its_grid_is_drawn_or_training_has_passed_it(folder):
    rows = Rows(folder, {0: "start", 4: "fourth", 8: "eighth"})
    assert rows.new() == []
    held_out(folder, 0)
    assert rows.new() == []
    (folder / "samples/start.png").touch()
    (folder / "losses.png").touch()
    (row,) = rows.new()
    assert (row.step, row.scalars) == (0, {"held_out/loss": 2.0, "held_out/bits": 2.5})
    assert row.pictures == {"samples": folder / "samples/start.png", "losses": folder / "losses.png"}
    metrics(folder, 2, skipped=0, nothing=None, words="no number", on=True)
    metrics(folder, 4)
    (row,) = rows.new()
    assert (row.step, row.seconds) == (2, 0.2)
    assert row.scalars == {"metrics/seconds": 0.2, "metrics/loss": 0.5, "metrics/skipped": 0}
    held_out(folder, 4)
    assert rows.new() == []
    metrics(folder, 6)  # whose grid could not be drawn
    assert [(row.step, set(row.pictures)) for row in rows.new()] == [(4, set()), (6, set())]
    metrics(folder, 8)
    assert rows.new() == [] and [row.step for row in rows.new(ended=True)] == [8]
    assert rows.new(ended=True) == []


def test_grids_of_a_training_that_went_back_count_when_it_comes_to_their_steps(folder):
    """Or W&B, which takes no step back, would have the row of a later step first."""
    for name in ("fourth", "eighth"):
        (folder / f"samples/{name}.png").touch()
    for step in (2, 4):
        metrics(folder, step)
    rows = Rows(folder, {4: "fourth", 8: "eighth", 10: "tenth"})
    assert [(row.step, len(row.pictures)) for row in rows.new()] == [(2, 0), (4, 1)]
    metrics(folder, 6)
    assert [(row.step, len(row.pictures)) for row in rows.new()] == [(6, 0)]
    metrics(folder, 8)
    assert [(row.step, len(row.pictures)) for row in rows.new()] == [(8, 1)]
    metrics(folder, 10)
    assert rows.new() == []
    (folder / "samples/tenth.png").touch()
    assert [(row.step, len(row.pictures)) for row in rows.new()] == [(10, 1)]


def test_a_grid_drawn_while_the_logs_are_read_waits_for_its_losses(folder, monkeypatch):
    rows = Rows(folder, {4: "fourth"})
    metrics(folder, 4)
    of_step, read = rows._held_out, rows._held_out.new

    def meanwhile():
        found = read()
        held_out(folder, 4)
        (folder / "samples/fourth.png").touch()
        return found

    monkeypatch.setattr(of_step, "new", meanwhile)
    assert rows.new() == []
    monkeypatch.setattr(of_step, "new", read)
    (row,) = rows.new()
    assert row.scalars["held_out/loss"] == 2.0 and set(row.pictures) == {"samples"}


def test_a_history_has_the_rows_in_order_and_the_charts_of_the_last_snapshot(folder):
    for step in (2, 4, 6):
        metrics(folder, step)
    with open(folder / "metrics.jsonl", "ab") as log:
        log.write(b'{"step": 8, "seconds": 1, "loss": 0.5, "crc32": "00000000"}\n{"step": 10, "sec')
    for step in (3, 5):
        held_out(folder, step)
        (folder / f"samples/{step}.png").touch()
    (folder / "curves.png").touch()
    found = Rows(folder, {3: "3", 5: "5", 12: "12"}).new()
    assert [row.step for row in found] == [2, 3, 4, 5, 6]
    assert [row.seconds for row in found] == [0.2, 0.2, 0.4, 0.4, 0.6]
    assert [set(row.pictures) for row in found] == [set(), {"samples"}, set(), {"samples", "curves"}, set()]


class Tracker:
    """Fails at the steps of ``fails``, once each; ``given`` has what each life was given. All ends when it has all."""

    given, fails, ended = [], [], threading.Event()

    def __init__(self, job, say):
        self.given.append([])
        self.stumble("made")

    def stumble(self, at):
        if at in self.fails:
            self.fails.remove(at)
            raise RuntimeError(f"no\nserver at {at}")

    def add(self, row):
        self.stumble(row.step)
        self.given[-1].append(row.step)

    def caught_up(self):
        self.given[-1].append("caught up")
        self.ended.set()

    def close(self):
        self.stumble("closed")
        self.given[-1].append("closed")


@pytest.mark.parametrize("fails", [[], ["made"], ["made", 2, 4], [4], ["closed"]])
def test_a_tracker_that_fails_is_made_anew_given_everything_again_and_named_once(folder, monkeypatch, fails):
    for step in (2, 4):
        metrics(folder, step)
    monkeypatch.setattr(Tracker, "given", [])
    monkeypatch.setattr(Tracker, "fails", list(fails))
    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(serve, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(Tracker, "ended", threading.Event())
    said = []
    serve.follow(Job(folder, {}, folder / "none"), "wandb", Tracker, Tracker.ended, said.append)
    whole = [2, 4, "caught up", "closed"]
    if fails == ["closed"]:  # at the end, when there is no time to try again
        assert Tracker.given == [whole[:-1]]
    else:
        assert Tracker.given[-1] == whole and len(Tracker.given) == 1 + len(fails)
    why = "RuntimeError: no\\nserver at "
    again = f"wandb failed, and is tried again every minute; the run does not depend on it: {why}"
    last = f"wandb failed, and lacks the rest: {why}closed. unstir report {folder} --no-measure, or continuing the run"
    expected = [f"{last}, gives it the rest"] if fails == ["closed"] else [f"{again}{first}" for first in fails[:1]]
    assert said == expected


def test_one_that_fails_until_the_end_says_why_and_at_last_what_gives_it_the_rest(folder, monkeypatch):
    ended, said = threading.Event(), []

    def refuse(job, say):
        (ended.set() if said else None)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.01)
    serve.follow(Job(folder, {}, folder / "none"), "wandb", refuse, ended, said.append)
    assert [text.split(":")[0] for text in said] == [
        "wandb failed, and is tried again every minute; the run does not depend on it",
        "wandb failed, and lacks the rest",
    ]
    assert said[1].endswith(
        f"free some space. unstir report {folder} --no-measure, or continuing the run, gives it the rest"
    )


def test_the_names_of_trackers_are_checked():
    assert LogConfig(to=["wandb", "tensorboard"]).to == ("wandb", "tensorboard")
    with pytest.raises(UserError, match=r"to.*='tensorbord': it must be one of 'tensorboard', 'wandb'"):
        LogConfig(to=["tensorbord"])
    with pytest.raises(UserError, match="names wandb twice; once is enough"):
        LogConfig(to=["wandb", "tensorboard", "wandb"])


def test_the_process_of_a_tracker_does_without_torch():
    """Which would take seconds, and hundreds of megabytes beside the training's own."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    program = (
        "import sys; from importlib import import_module as load; from unstir.trackers import serve\n"
        "for module in map(load, serve.MODULES.values()): module.load()\n"
        "print('torch' in sys.modules, len(serve.MODULES))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "2"]
