"""Memory: what does not fit before the first step is halved, under a real limit; what runs out later is said."""

from dataclasses import replace

import pytest
import torch
from test_parallel import training
from test_resume import assert_same, outcome

from conftest import DISTILLED, tiny_config
from processes import in_a_child
from together import together
from unstir.chain import Chain
from unstir.errors import OutOfMemoryError
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import save_images
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.train import fits, held_out, paths, record, state, trainer
from unstir.train.launch import open_run, train_run
from unstir.train.trainer import Trainer

LARGE = {
    "model__channels": 16, "train__batch_size": 1000, "train__micro_batch": 0, "train__length": "1 step",
    "train__ema_decay": 0.0, "checkpoint__every": "9 steps", "log__every": "1 step",
}  # fmt: skip
ROOM = 450_000_000
VARIANTS = {
    "as it is": {},
    "recomputed": {"train__activation_checkpointing": 1},
    "in bfloat16, with Muon": {"train__dtype": "bfloat16", "train__optimizer": "muon", "train__power_ema": True},
    "times by losses": {"loss__times": "importance"},
}


@pytest.fixture
def large(make_run):
    """large(micro_batch) -> a run of a large batch, in a process that has loaded what training needs."""
    Trainer(*make_run("small", train__length="1 step")).run()
    return lambda size: make_run(f"large-{size}", **{**LARGE, "train__micro_batch": size})


def test_what_does_not_fit_is_halved_once_and_kept_in_the_settings(large):
    run, store = large(0)
    text = in_a_child(lambda: train_run(run.config, run.path).finished, ROOM)
    assert text == "True"
    size = Run.open(run.path).config.train.micro_batch
    assert size in (500, 250)
    given, _ = large(size)
    Trainer(given, store).run()
    assert_same((*outcome(run)[:2], *[()] * 3), (*outcome(given)[:2], *[()] * 3))
    assert open_run(run.config, run.path, store).config.train.micro_batch == size  # whatever memory there is
    other = replace(run.config, train=replace(run.config.train, micro_batch=2 * size))
    assert open_run(other, run.path, store).config.train.micro_batch == 2 * size


def or_lowers(work):
    """What ``work`` returns, or the settings to lower where the memory is used up."""
    try:
        return work()
    except OutOfMemoryError as error:
        return error.lower


def test_a_size_that_was_given_is_tried_as_it_is(large):
    run, _ = large(900)
    text = in_a_child(lambda: or_lowers(lambda: train_run(run.config, run.path).finished), ROOM)
    assert text.startswith("('train.micro_batch',")
    assert Run.open(run.path).config.train.micro_batch == 900 and not run.checkpoints.exists()
    fewer = replace(run.config, train=replace(run.config.train, micro_batch=20))
    assert in_a_child(lambda: train_run(fewer, run.path).finished, ROOM) == "True"


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_and_three_images_tell_the_bytes_of_more(variant, make_run):
    run, store = make_run(**VARIANTS[variant])
    two, three, many = (fits._counted(run, store, num) for num in (2, 3, 40))
    extended = max(a + 38 * (b - a) for a, b in zip(two, three, strict=True))
    assert extended == pytest.approx(max(many), rel=0.02) and max(many) > 1.5 * max(three)


@pytest.mark.parametrize(
    "changes", [{}, DISTILLED, {"data__condition": "masked", "data__flip": True}], ids=["trained", "distilled", "told"]
)
def test_the_trial_changes_nothing_and_says_what_it_does(changes, make_run, monkeypatch, logged, counts):
    monkeypatch.setattr(paths, "STEPS", (2, 4))  # of a teacher's paths
    changes = {**changes, "train__micro_batch": 0, "train__length": "4 steps"}
    plain, store = make_run("plain", **changes)
    Trainer(plain, store).run()
    run, _ = make_run(**changes)
    text, state = (run.path / "config.toml").read_text(), torch.random.get_rng_state()
    tried, real = [], fits._counted
    monkeypatch.setattr(fits, "_counted", lambda *given: tried.append(given[2]) or real(*given))
    for _ in range(2):  # the second time it is continued
        assert train_run(run.config, run.path).finished
    assert [told[1:] for told in counts if "into memory" in told[0]] == [(1, 2), (2, 2)]
    assert tried == [2, 3] and torch.equal(torch.random.get_rng_state(), state)
    assert_same(outcome(run), outcome(plain))
    assert (run.path / "config.toml").read_text() == text
    assert not any("memory" in text for text in logged)


@pytest.mark.parametrize(("most", "expected"), [(8, 0), (3, 2), (0, None)])
def test_where_an_error_says_so_it_is_caught(most, expected, make_run, monkeypatch, logged):
    monkeypatch.setattr(fits, "extended", lambda run, store, size, _: fits.taken(run, store, size))  # as on a GPU
    run, store = make_run(train__micro_batch=0)
    real = trainer.denoising_loss

    def greedy(denoiser, x_0, *given):
        if len(x_0) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return real(denoiser, x_0, *given)

    monkeypatch.setattr(trainer, "denoising_loss", greedy)
    if expected is None:
        with pytest.raises(OutOfMemoryError, match="model.channels"):
            fits.fitting(run, store)
        return
    assert fits.fitting(run, store).config.train.micro_batch == expected
    assert Run.open(run.path).config.train.micro_batch == expected
    assert len(logged) == bool(expected)


def test_of_several_processes_the_smallest_answer_holds(digits, tmp_path):
    def work(rank):
        fits.extended = lambda run, store, size, _: lambda tried: tried <= (4, 2)[rank]
        return training(tiny_config(digits, train__batch_size=7, train__micro_batch=0), tmp_path / "run")(rank)

    assert together(2, work, tmp_path / "job")[0][:2] == [12, True]
    assert Run.open(tmp_path / "run").config.train.micro_batch == 2


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
    module, name, lower, least, make_run, trained, watched
):
    settings = {"log__held_out_images": 6, "log__held_out_times": 1}
    run, _ = make_run(**settings)
    number = 4 if module is held_out else 13  # two for the first snapshot, and two for that of step 1
    watched(module, name, CPU, lambda calls: len(calls) == number)
    with pytest.raises(OutOfMemoryError, match="4.096 GB") as raised:
        train_run(run.config, run.path)
    assert raised.value.lower == lower
    assert checkpoint.newest(run.checkpoints)[0].step >= least
    assert train_run(run.config, run.path).finished
    assert_same(outcome(run), outcome(trained("whole", **settings)[0]))


def test_a_state_that_cannot_be_copied_is_written_as_it_is_with_the_same_bits(make_run, trained, watched, logged):
    run, store = make_run()
    calls = watched(state, "on_host", CPU, lambda calls: len(calls) > 1)
    assert Trainer(run, store).run()
    assert len(calls) == 2 and len(logged) == 1 and "step 4," in logged[0]
    assert_same(outcome(run), outcome(trained("whole")[0]))


def test_what_is_written_without_a_copy_is_of_its_step(make_run, watched):
    run, store = make_run()
    made = Trainer(run, store)
    made.take_step()
    expected = {name: t.clone() for name, t in made.state.copied(run)().tensors.items()}
    watched(state, "on_host", MemoryError())
    made._saving.begin()
    made.take_step()
    made._saving.wait()
    found = checkpoint.newest(run.checkpoints)[0]
    assert found.step == 1 and all((found.tensors[name] == t).all() for name, t in expected.items())


def test_a_checkpoint_that_cannot_be_written_for_want_of_memory_leaves_the_one_before(make_run, watched):
    run, _ = make_run(grids__log_spaced=0)
    is_late = lambda folder, content: folder.name == "checkpoints" and content.step > 4
    watched(record.checkpoint, "save", CPU, lambda calls: is_late(*calls[-1]))
    with pytest.raises(OutOfMemoryError, match="4.096 GB"):
        train_run(run.config, run.path)
    assert checkpoint.newest(run.checkpoints)[0].step == 4
