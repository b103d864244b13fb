"""A training that stops by itself when it draws copies of its training images, and only then."""

from pathlib import Path

import pytest

from unstir.metrics import copies
from unstir.metrics.copies import NUM, CopyWatch
from unstir.train.launch import train_run
from unstir.train.observer import Observer, Observers, Stop


@pytest.mark.parametrize(("split", "step", "asked"), [("train", 12, 0), ("train", 0, None), ("held_out", 12, None)])
def test_it_asks_to_stop_where_training_images_are_drawn(run, store, monkeypatch, logged, split, step, asked):
    drawn = store.scale.to_model(store.images(split)[:NUM])
    monkeypatch.setattr(copies, "sample_batches", lambda model, job: [(range(NUM), drawn)])
    stop = Stop()
    CopyWatch(run.path, stop).grid(step, Path("any.png"))
    assert stop.signal == asked and len(logged) == (asked == 0)


def test_images_of_an_untrained_network_are_no_copies(run):
    stop = Stop()
    CopyWatch(run.path, stop).grid(12, Path("any.png"))
    assert stop.signal is None


class Asks(Observer):
    """Asks to stop at the first grid of a trained network."""

    def __init__(self, stop):
        self.stop, self.steps = stop, []

    def grid(self, step, file):
        if step:
            self.stop.request(0)

    def step(self, step):
        self.steps.append(step)


def test_a_training_that_an_observer_ends_is_saved_and_goes_on(make_run):
    run, _ = make_run("asked")
    stop = Stop()
    first, second = Asks(stop), Asks(stop)
    done = train_run(run.config, run.path, observer=Observers(first, second), stop=stop)
    assert not done.finished and 0 < done.step < run.length and run.newest_step() == done.step
    assert first.steps == second.steps == [*range(1, done.step + 1)]
    assert train_run(run.config, run.path).finished
