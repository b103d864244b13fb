"""Looks made after training are those that training would have made."""

from held_out_lines import measured as lines

from refusals import refusing
from unstir.data import Store
from unstir.runs import lines as log
from unstir.train.held_out import catch_up

SEEN = {"log__held_out_images": 16, "log__held_out_times": 4, "grids__log_spaced": 3}


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
