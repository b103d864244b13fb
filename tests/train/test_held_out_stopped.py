"""The held-out loss of a run that is stopped or killed, or measured afterwards: each line is written exactly once."""

import pytest
from held_out_lines import MEASURED, measured
from test_resume import outcome, survives_kills

from refusals import refusing
from tiers import times
from unstir.data import Store
from unstir.runs import checkpoint
from unstir.runs import lines as log
from unstir.train import held_out, record, trainer
from unstir.train.held_out import catch_up
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
    pictures = {path.name: path.read_bytes() for path in whole.samples.iterdir()}
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
            assert {path.name: path.read_bytes() for path in run.samples.iterdir()} == pictures
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


SEEN = {"log__held_out_images": 16, "log__held_out_times": 4, "grids__log_spaced": 3}


def lines(run):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in run.held_out()]


def test_what_training_did_not_write_is_added_as_it_would_have_been(trained, counts):
    run, store = trained(**SEEN)
    whole = lines(run)
    assert [line["step"] for line in whole] == [0, 1, 12]
    assert catch_up(run, store) == 0 and lines(run) == whole
    for kept in ([0, 12], [12], []):
        left = [line for line in run.held_out() if line["step"] in kept]
        log.write(run.log_file("held_out"), left)
        missing = len({1, 12} - set(kept))
        counts.clear()
        assert catch_up(run, store) == missing
        assert [count[1:] for count in counts] == [(done, missing) for done in range(1, missing + 1)]
        assert lines(run) == [line for line in whole if line["step"] or 0 in kept]


def test_lines_that_a_killed_call_left_out_of_order_are_put_in_order(trained):
    run, store = trained(**SEEN)
    whole = lines(run)
    run.log_file("held_out").write_text(
        "".join(reversed(run.log_file("held_out").read_text().splitlines(keepends=True)))
    )
    assert catch_up(run, store) == 0 and lines(run) == whole


def test_a_run_in_training_and_one_without_held_out_images_are_left_alone(trained):
    run, store = trained(**SEEN)
    run.log_file("held_out").unlink()
    with run.lock():
        assert catch_up(run, store) == 0 and not run.log_file("held_out").exists()
    without, store = trained("without")
    assert catch_up(without, store) == 0 and not without.log_file("held_out").exists()


def test_the_data_of_another_run_adds_nothing(trained, tmp_path):
    run, store = trained(**SEEN)
    run.log_file("held_out").unlink()
    other = Store(store.path, {**store.manifest, "content_hash": "0" * 64})
    with refusing("", store.path):
        catch_up(run, other)
    assert not run.log_file("held_out").exists()


def test_lines_whose_weights_are_gone_stay_and_damaged_weights_are_passed_over(trained):
    run, store = trained(**SEEN)
    whole = lines(run)
    for path in (*run.checkpoints.iterdir(), run.weights / "step-00000012.safetensors"):
        path.unlink()
    assert run.saved_steps() == [1]
    assert catch_up(run, store) == 0 and lines(run) == whole
    log.write(run.log_file("held_out"), [line for line in run.held_out() if line["step"] == 12])
    (run.weights / "step-00000001.safetensors").write_bytes(b"damaged")
    assert catch_up(run, store) == 0 and [line["step"] for line in lines(run)] == [12]
