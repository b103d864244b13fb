"""The held-out loss of a run that is stopped or killed: each line is written exactly once."""

import pytest
from held_out_lines import MEASURED, measured
from test_resume import outcome, survives_kills

from conftest import pixels_in
from tiers import times
from unstir.runs import checkpoint
from unstir.train import held_out, record, trainer
from unstir.train.observer import Observer, Stop
from unstir.train.trainer import Trainer

KILLS = times(3, 100)
SHORT = {"train__length": "3 steps", "grids__log_spaced": 1, "grids__steps": 1, "log__held_out_images": 4}


@pytest.fixture
def make_run(make_run):
    """The tiny run, whose loss is measured on six images of each split."""
    return lambda name="run", **changes: make_run(name, **{**MEASURED, **changes})


def test_stopped_anywhere_each_line_is_written_once(trained, make_run):
    whole, _ = trained("whole", **{**MEASURED, **SHORT})
    for at in (0, 1, 3):
        made, stop = Trainer(*make_run("parts", **SHORT)), Stop()
        while made.state.step < at:
            made.take_step()
        stop.request(2)
        made.run(stop)
    run, store = make_run("parts", **SHORT)
    assert [line["step"] for line in run.held_out()] == []  # nothing was begun while stopping
    assert Trainer(run, store).run()
    assert measured(run) == measured(whole)[1:]


class Interrupting(Observer):
    """Asks to stop at the n-th call of a snapshot."""

    def __init__(self, stop, at):
        self.stop, self.at, self.heard = stop, at, []

    def snapshot(self, what, call, calls):
        if what != "held-out loss":
            return
        self.heard.append((call, calls))
        if call == self.at:
            self.stop.request(2)


def test_a_measurement_that_is_interrupted_is_given_up_and_taken_again(trained, make_run):
    whole, _ = trained("whole", **{**MEASURED, **SHORT})
    stop = Stop()
    observer = Interrupting(stop, at=9)
    run, store = make_run("parts", **SHORT)
    assert not Trainer(run, store, observer).run(stop)
    assert observer.heard[-1][0] == 9 and not run.log_file("held_out").exists()
    assert not (run.samples / "start.png").exists()
    observer = Interrupting(stop, at=0)
    assert Trainer(*make_run("parts", **SHORT), observer).run()
    assert measured(run) == measured(whole)
    heard = len(observer.heard) // 2
    assert observer.heard == 2 * [(call, heard) for call in range(1, heard + 1)]


def killed_before(monkeypatch, module, name, at_call):
    """Make the n-th call of a function raise as a kill would end it: nothing after it is run."""
    real, calls = getattr(module, name), []

    def fatal(*arguments, **options):
        calls.append(1)
        if len(calls) == at_call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, fatal)


def test_killed_between_the_line_and_the_grid_it_has_each_line_once(trained, make_run, monkeypatch):
    whole, _ = trained("whole", **{**MEASURED, **SHORT})
    pictures = pixels_in(whole.samples)
    # a line is the second that a snapshot adds: that of errors.jsonl comes before it
    places = (held_out, "append", (1, 2, 4)), (trainer, "draw_charts", (1, 2)), (record, "draw_grid", (1, 2))
    for module, name, calls in places:
        for at in calls:
            run, store = make_run(f"{name}-{at}", **SHORT)
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                killed_before(patch, module, name, at)
                Trainer(run, store).run()
            assert len(run.held_out()) == ((at - 1) // 2 if name == "append" else at)
            assert Trainer(*make_run(run.path.name, **SHORT)).run()
            assert measured(run) == measured(whole)
            assert pixels_in(run.samples) == pictures
            assert (run.path / "losses.png").exists()


@pytest.mark.slow
def test_killed_at_random_instants_the_lines_are_the_same(make_run):
    make = lambda name: make_run(name, **SHORT)
    whole, store = make("whole")
    Trainer(whole, store).run()
    survives_kills(make, KILLS, lambda run: (*outcome(run), measured(run)), (*outcome(whole), measured(whole)))


def test_lines_past_the_step_that_training_goes_back_to_are_dropped_and_taken_again(trained, make_run):
    run, _ = trained(**MEASURED)
    whole, last = measured(run), checkpoint.listed(run.checkpoints)[-1][1]
    last.write_bytes(last.read_bytes()[:-100])
    with run.log_file("held_out").open("a") as file:
        file.write('{"step": 13, "tra')  # what a kill in the middle of a line leaves
    again = Trainer(*make_run())
    again.start()
    assert again.state.step == 8 and [line["step"] for line in run.held_out()] == [0, 1]
    assert again.run()  # though the last grid is there
    assert measured(run) == whole and len(run.log_file("held_out").read_text().splitlines()) == 3


def test_a_line_that_a_kill_left_out_changes_no_checkpoint_when_it_is_taken(trained, make_run):
    """As a kill between the last save and the last measurement leaves it."""
    run, _ = trained(log__held_out_images=8)
    whole, texts = (
        checkpoint.newest(run.checkpoints)[0],
        run.log_file("held_out").read_bytes().splitlines(keepends=True),
    )
    run.log_file("held_out").write_bytes(b"".join(texts[:-1]))
    Trainer(*make_run(log__held_out_images=8)).run()
    again = checkpoint.newest(run.checkpoints)[0]
    assert again.state == whole.state and [line["step"] for line in run.held_out()][-1] == 12
