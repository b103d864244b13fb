"""Memory that runs out for a grid, a held-out loss or a checkpoint: one line says for which, and its remedy works."""

import re

import pytest
import torch
from test_halving import CPU, GPU
from test_resume import assert_same, outcome

import unstir.runs.model as models
from conftest import tiny_config, without_charts
from unstir.errors import OutOfMemoryError
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.toml import to_toml
from unstir.train import held_out, saving, state
from unstir.train.launch import train_run
from unstir.train.observer import Observer
from unstir.train.trainer import Trainer

ERRORS = [GPU, CPU, MemoryError()]
ASKED = {GPU: ", at 3.00 GiB more", CPU: ", at 4.096 GB more", ERRORS[2]: ""}
MEASURED = {"log__held_out_images": 6, "log__held_out_times": 1, "train__micro_batch": 4}
THERE = r", and this process can have [\d.]+ GB of memory; "


def lacking(patch, module, name, error, most=0, since=0):
    """Let a function that is given a batch of more than ``most`` images fail, from its call number ``since`` on."""
    real, calls = getattr(module, name), []

    def failing(denoise, other, *given, **options):
        batch = next(each for each in (other, *given) if hasattr(each, "shape"))
        calls.append(len(batch))
        if len(batch) > most and len(calls) > since:
            raise error
        return real(denoise, other, *given, **options)

    patch.setattr(module, name, failing)
    return calls


@pytest.fixture
def typed(digits, command, tmp_path, monkeypatch):
    """typed("--grids.num", 2, **settings) -> (status, output, error) of `unstir train` for the tiny run in "run"."""
    without_charts(monkeypatch)

    def train(*words, **settings):
        (tmp_path / "tiny.toml").write_text(to_toml(tiny_config(digits, **settings)))
        return command("train", tmp_path / "tiny.toml", "--out", tmp_path / "run", *words)

    return train


def refusal(result):
    """The one line of a refusal."""
    status, _, err = result
    assert status == 2 and "Traceback" not in err, err
    return err.splitlines()[-1]


def assert_same_weights(ours, theirs, exactly):
    """Whether two runs end with the same tensors; with other sums of a batch they are near each other."""
    ours, theirs = (checkpoint.newest(Run.open(path).checkpoints)[0].tensors for path in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0 if exactly else 1e-3, atol=0 if exactly else 1e-5)


@pytest.mark.parametrize("error", ERRORS, ids=["GPU", "CPU", "Python"])
def test_a_grid_that_does_not_fit_is_named_with_a_number_of_images_that_does(
    error, typed, trained, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        lacking(patch, models, "draw", error, most=2, since=1)  # the first grid is drawn
        said = refusal(typed())
        path = tmp_path / "run/checkpoints/step-00000001.safetensors"
        assert re.fullmatch(
            f"unstir: out of memory{re.escape(ASKED[error])}, for the grid of step 1, whose 4 images are drawn at once"
            f"{THERE}{re.escape(str(path))} is whole: continue the run with --grids.num 2, or end other programs .*",
            said,
        ), said
        assert checkpoint.newest(path.parent)[0].step == 1
        assert refusal(typed()).partition(", and")[0] == said.partition(", and")[0]
        assert typed("--grids.num", 2)[0] == 0
    ours, whole = outcome(Run.open(tmp_path / "run")), outcome(trained("whole")[0])
    assert_same((*ours[:4], ()), (*whole[:4], ()))
    assert ours[4].keys() == whole[4].keys() and ours[4]["noise.png"] != whole[4]["noise.png"]
    assert ours[4]["start.png"] == whole[4]["start.png"]


def test_a_grid_of_one_image_has_no_smaller_one(typed, monkeypatch):
    lacking(monkeypatch, models, "draw", CPU)
    said = refusal(typed(grids__num=1))
    assert "for the grid of step 0, whose one image is drawn at once, and this process can have" in said
    assert "; nothing was trained yet: end other" in said
    assert said.endswith("then continue the run") and "--grids" not in said


def test_a_held_out_loss_that_does_not_fit_is_named_with_what_takes_less(typed, trained, tmp_path, monkeypatch):
    for words in (("--train.micro_batch", 2), ("--log.held_out_images", 3), ("--log.held_out_images", 0)):
        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            lacking(patch, held_out, "denoising_loss", CPU, most=3 if words[1] else 0, since=4)
            said = refusal(typed(**MEASURED))
            where = re.escape(str(run / "checkpoints/step-00000001.safetensors"))
            assert re.fullmatch(
                "unstir: out of memory, at 4.096 GB more, for the held-out loss of step 1, of 6 images, 4 at once"
                f"{THERE}{where} is whole: continue the run with --train.micro_batch 2 or --log.held_out_images 3, or "
                "end other programs .*",
                said,
            ), said
            assert typed(*words, **MEASURED)[0] == 0
        assert_same_weights(run, trained("whole", **MEASURED)[0].path, exactly=words[0] != "--train.micro_batch")
        run.rename(tmp_path / f"run{words}")


def test_two_held_out_images_one_at_once_have_none_as_their_remedy(typed, monkeypatch):
    lacking(monkeypatch, held_out, "denoising_loss", CPU)
    said = refusal(typed(log__held_out_images=2, train__micro_batch=1))
    assert "of 2 images, 1 at once, and this process can have" in said
    assert "; nothing was trained yet: continue the run with --log.held_out_images 0, which measures none, or" in said


class Heard(Observer):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def test_a_state_that_cannot_be_copied_is_written_as_it_is_with_the_same_bits(make_run, trained, monkeypatch):
    run, store = make_run()
    real, calls, observer = state.on_host, [], Heard()

    def failing(tensors):
        calls.append(len(tensors))
        if len(calls) > 1:
            raise CPU
        return real(tensors)

    monkeypatch.setattr(state, "on_host", failing)
    trainer = Trainer(run, store, observer)
    assert trainer.run()
    assert_same(outcome(run), outcome(trained("whole")[0]))
    assert len(calls) == 2 and observer.said == [
        "out of memory at step 4, at 4.096 GB more, for the copy of what a checkpoint holds: from there on training "
        "waits while one is written, which changes nothing else"
    ]


def test_what_is_written_without_a_copy_is_of_its_step(make_run, monkeypatch):
    run, store = make_run()
    monkeypatch.setattr(state, "on_host", lambda _: exec("raise MemoryError"))
    trainer = Trainer(run, store)
    trainer.take_step()
    expected = {name: t.clone() for name, t in trainer.state._tensors().items()}
    trainer._saving.begin()
    trainer.take_step()
    trainer._saving.wait()
    found = checkpoint.newest(run.checkpoints)[0]
    assert found.step == 1 and all((found.tensors[name] == t).all() for name, t in expected.items())


def test_a_checkpoint_that_cannot_be_written_for_want_of_memory_names_the_one_before(make_run, monkeypatch):
    run, _ = make_run(grids__log_spaced=0)
    real = checkpoint.save

    def failing(folder, content):
        if folder.name == "checkpoints" and content.step > 4:
            raise CPU
        return real(folder, content)

    monkeypatch.setattr(saving.checkpoint, "save", failing)
    with pytest.raises(OutOfMemoryError) as raised:
        train_run(run.config, run.path)
    where = re.escape(str(run.checkpoints / "step-00000004.safetensors"))
    assert re.fullmatch(
        f"out of memory, at 4.096 GB more, for the checkpoint of step 8{THERE}{where} is whole: end other programs or "
        r"raise this one's limit \(.*\), then continue the run",
        str(raised.value),
    ), str(raised.value)
    assert checkpoint.newest(run.checkpoints)[0].step == 4
