"""Memory that runs out in a step, a grid, a held-out loss or a checkpoint: one line says what to lower."""

from dataclasses import replace

import pytest
from test_fits import ROOM, or_lowers
from test_resume import assert_same, outcome

from processes import in_a_child
from unstir.chain import Chain
from unstir.errors import OutOfMemoryError
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import save_images
from unstir.runs import checkpoint
from unstir.train import held_out, record, state, trainer
from unstir.train.launch import train_run
from unstir.train.trainer import Trainer

CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096000000 bytes.")


def test_a_grid_that_runs_out_of_memory_says_what_to_lower_and_that_works(make_run):
    run, _ = make_run("many", model__channels=32, train__length="1 step", grids__num=10_000, grids__log_spaced=0)
    Trainer(*make_run("small", train__length="1 step")).run()  # which loads what training needs

    def trained(num):
        config = replace(run.config, grids=replace(run.config.grids, num=num))
        return in_a_child(lambda: or_lowers(lambda: train_run(config, run.path).finished), ROOM)

    assert trained(10_000).startswith("('grids.num',")
    assert trained(200) == "True"


def test_a_batch_of_samples_that_is_too_large_says_what_to_lower_and_leaves_no_folder(make_run, tmp_path):
    run, store = make_run("wide", model__channels=16, train__length="1 step")
    Trainer(run, store).run()
    job, room = Job(num=4000, chain=Chain("ddim", steps=2), batch_size=4000), 120_000_000
    text = in_a_child(lambda: or_lowers(lambda: save_images(run.model(device="cpu"), job, tmp_path / "made")), room)
    assert text.startswith("('batch_size',")
    assert not (tmp_path / "made").exists()
    some = replace(job, batch_size=200, num=200)
    assert in_a_child(lambda: len(next(iter(sample_batches(run.model(device="cpu"), some)))[1]), room) == "200"


@pytest.mark.parametrize(
    ("module", "name", "lower", "least"),
    [
        (held_out, "squared_errors", ("log.held_out_images", "train.micro_batch"), 0),
        (trainer, "denoising_loss", ("train.micro_batch", "model.channels"), 4),
    ],
)
def test_what_runs_out_of_memory_on_the_way_goes_on_from_the_last_checkpoint(
    module, name, lower, least, make_run, trained, monkeypatch
):
    settings = {"log__held_out_images": 6, "log__held_out_times": 1}
    run, _ = make_run(**settings)
    real, calls = getattr(module, name), []

    def failing(*given):
        calls.append(1)
        if len(calls) > 12:
            raise CPU
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing)
        if module is held_out:
            calls.extend([1] * 9)  # two for the first snapshot, and two for that of step 1
        with pytest.raises(OutOfMemoryError, match="4.096 GB") as raised:
            train_run(run.config, run.path)
    assert raised.value.lower == lower
    assert checkpoint.newest(run.checkpoints)[0].step >= least
    assert train_run(run.config, run.path).finished
    assert_same(outcome(run), outcome(trained("whole", **settings)[0]))


def test_a_state_that_cannot_be_copied_is_written_as_it_is_with_the_same_bits(make_run, trained, monkeypatch, logged):
    run, store = make_run()
    real, calls = state.on_host, []

    def failing(tensors):
        calls.append(len(tensors))
        if len(calls) > 1:
            raise CPU
        return real(tensors)

    monkeypatch.setattr(state, "on_host", failing)
    assert Trainer(run, store).run()
    assert len(calls) == 2 and len(logged) == 1 and "step 4," in logged[0]
    assert_same(outcome(run), outcome(trained("whole")[0]))


def test_what_is_written_without_a_copy_is_of_its_step(make_run, monkeypatch):
    run, store = make_run()
    made = Trainer(run, store)
    made.take_step()
    expected = {name: t.clone() for name, t in made.state.copied(run)().tensors.items()}
    monkeypatch.setattr(state, "on_host", lambda _: exec("raise MemoryError"))
    made._saving.begin()
    made.take_step()
    made._saving.wait()
    found = checkpoint.newest(run.checkpoints)[0]
    assert found.step == 1 and all((found.tensors[name] == t).all() for name, t in expected.items())


def test_a_checkpoint_that_cannot_be_written_for_want_of_memory_leaves_the_one_before(make_run, monkeypatch):
    run, _ = make_run(grids__log_spaced=0)
    real = checkpoint.save

    def failing(folder, content):
        if folder.name == "checkpoints" and content.step > 4:
            raise CPU
        return real(folder, content)

    monkeypatch.setattr(record.checkpoint, "save", failing)
    with pytest.raises(OutOfMemoryError, match="4.096 GB"):
        train_run(run.config, run.path)
    assert checkpoint.newest(run.checkpoints)[0].step == 4
