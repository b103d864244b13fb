"""Checkpoints are written aside: each of one step, one at a time, whole before the process ends; no error is lost."""

import threading
import time

import pytest
import torch

from processes import until
from refusals import mistake
from unstir.errors import UserError
from unstir.runs import checkpoint
from unstir.train import record
from unstir.train.trainer import Trainer


class Gate:
    """Takes the place of `checkpoint.save`: each save waits until it is let through, or fails."""

    def __init__(self, monkeypatch):
        self.save, self.open, self.error = checkpoint.save, threading.Event(), None
        self.began, self.most, self.now = [], 0, 0
        monkeypatch.setattr(record.checkpoint, "save", self)

    def __call__(self, folder, content):
        if folder.name != "checkpoints":
            return self.save(folder, content)
        self.began.append(content.step)
        self.now += 1
        self.most = max(self.most, self.now)
        self.open.wait(30)
        self.now -= 1
        if self.error is not None:
            raise self.error
        return self.save(folder, content)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture
def training(make_run, gate):
    """training("2 steps", ...) -> the run that a thread trains while its first save waits, and what ends both."""

    def begin(length, first, **changes):
        run, store = make_run(train__length=length, grids__log_spaced=0, **changes)
        trainer, ended = Trainer(run, store), []
        thread = threading.Thread(target=lambda: ended.append(trainer.run()))
        thread.start()
        until(lambda: gate.began == [first])
        time.sleep(0.05)
        assert thread.is_alive() and saved(run) == []
        return run, lambda: (gate.open.set(), thread.join(30), ended)[2]

    return begin


def saved(run):
    return [step for step, _ in checkpoint.listed(run.checkpoints)]


MOVING = {"train__power_ema": True, "loss__times": "importance", "train__micro_batch": 0}


def test_steps_are_taken_while_a_checkpoint_of_before_is_written(make_run, gate):
    run, store = make_run(**MOVING)
    trainer = Trainer(run, store)
    trainer.take_step()
    expected = trainer.state.copied(run)()
    trainer._saving.begin()
    for _ in range(2):
        trainer.take_step()
    assert gate.began in ([], [1]) and saved(run) == []
    gate.open.set()
    trainer._saving.wait()
    found = checkpoint.newest(run.checkpoints)[0]
    assert found.step == 1 and found.state == expected.state and found.state["window"]["steps"] == 1
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in expected.tensors)
    moved = {name.split(".")[0] for name, t in trainer.state.copied(run)().tensors.items()
             if not torch.equal(t, found.tensors[name])}  # fmt: skip
    assert moved == {"model", "ema", "power", "optimizer", "times"}


def test_one_is_written_at_a_time_and_all_are_whole_before_the_run_ends(training, gate):
    run, end = training("4 steps", 1, checkpoint__every="1 step", checkpoint__keep=9)
    assert end() == [True] and gate.began == [1, 2, 3, 4] == saved(run) and gate.most == 1


def test_the_run_does_not_end_before_its_last_checkpoint_is_whole(training, monkeypatch):
    monkeypatch.setattr(Trainer, "_take_snapshot", lambda self, stop: None)
    run, end = training("2 steps", 2, checkpoint__every="9 steps")
    assert [line["event"] for line in run.log("events").lines] == ["started"]
    end()
    assert saved(run) == [2] and len(run.log("events").lines) == 2


@pytest.mark.parametrize("length", [2, 100])
def test_what_could_not_be_written_ends_the_training_with_the_same_words(make_run, gate, length):
    run, store = make_run(train__length=f"{length} steps", checkpoint__every="2 steps", grids__log_spaced=0)
    trainer = Trainer(run, store)
    take = trainer.take_step

    def step():
        take()
        until(lambda: trainer._saving._written is None or trainer._saving._written.done())

    trainer.take_step, gate.error = step, UserError("", "x", "is full")
    gate.open.set()
    assert "x is full" in str(mistake(trainer.run))
    assert saved(run) == [] and trainer.state.step == min(length, 3)  # at the next step, not at the next save
    assert run.log("events").lines[-1]["event"] == "started"
    assert Trainer(run, store).state.step == 0


def test_an_error_of_training_is_raised_after_what_is_being_written_is_whole(make_run, gate):
    run, store = make_run(train__length="9 steps", checkpoint__every="2 steps", grids__log_spaced=0)
    trainer = Trainer(run, store)
    take = trainer.take_step

    def step():
        if trainer.state.step == 3:
            threading.Timer(0.05, gate.open.set).start()
            raise ZeroDivisionError
        take()

    trainer.take_step = step
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    assert saved(run) == [2]


def test_the_time_of_saving_does_not_count_against_the_speed(make_run, gate):
    run, store = make_run(
        train__length="3 steps", checkpoint__every="1 step", log__every="3 steps", grids__log_spaced=0
    )
    trainer = Trainer(run, store)
    threading.Timer(1.5, gate.open.set).start()
    trainer.run()
    (line,) = run.metrics()
    assert line["seconds"] >= 1.4 and line["images_per_second"] > 3 * 8 / 1.4
