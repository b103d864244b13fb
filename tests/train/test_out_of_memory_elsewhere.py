"""Memory that runs out for a grid, a held-out loss or a checkpoint: one line says for which, and its remedy works."""

import re
import shlex
import shutil

import pytest
import torch
from test_halving import CPU, GPU
from test_resume import assert_same, outcome

import unstir.runs.model as models
from conftest import tiny_config, without_charts
from unstir.errors import OutOfMemoryError
from unstir.runs import checkpoint, resources
from unstir.runs import lines as log
from unstir.runs.run import Run
from unstir.runs.toml import to_toml
from unstir.train import held_out, out_of_memory, saving, state
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
        run, path = tmp_path / "run", tmp_path / "run/checkpoints/step-00000001.safetensors"
        assert re.fullmatch(
            f"unstir: out of memory{re.escape(ASKED[error])}, for the grid of step 1, whose 4 images are drawn at once"
            f"{THERE}{re.escape(str(path))} is whole; to go on: unstir train --out {run} --grids.num 2; or end .*",
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
    assert "; nothing was trained yet; to go on: end other" in said
    assert said.endswith("then give the same command again") and "--grids" not in said


def test_a_held_out_loss_that_does_not_fit_is_named_with_what_takes_less(typed, trained, tmp_path, monkeypatch):
    for words in (("--train.micro_batch", 2), ("--log.held_out_images", 3), ("--log.held_out_images", 0)):
        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            lacking(patch, held_out, "denoising_loss", CPU, most=3 if words[1] else 0, since=4)
            said = refusal(typed(**MEASURED))
            where = re.escape(str(run / "checkpoints/step-00000001.safetensors"))
            assert re.fullmatch(
                "unstir: out of memory, at 4.096 GB more, for the held-out loss of step 1, of 6 images, 4 at once"
                f"{THERE}{where} is whole; to go on: unstir train --out {run} --train.micro_batch 2; or unstir train "
                f"--out {run} --log.held_out_images 3; or end other programs .*",
                said,
            ), said
            assert typed(*words, **MEASURED)[0] == 0
        assert_same_weights(run, trained("whole", **MEASURED)[0].path, exactly=words[0] != "--train.micro_batch")
        run.rename(tmp_path / f"run{words}")


def test_two_held_out_images_one_at_once_have_none_as_their_remedy(typed, tmp_path, monkeypatch):
    lacking(monkeypatch, held_out, "denoising_loss", CPU)
    said = refusal(typed(log__held_out_images=2, train__micro_batch=1))
    assert "of 2 images, 1 at once, and this process can have" in said
    remedy = f"unstir train --out {tmp_path / 'run'} --log.held_out_images 0; or end"
    assert f"; nothing was trained yet; to go on: {remedy}" in said


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
        "out of memory at step 4, at 4.096 GB more, for the copy of the state that a checkpoint is written from; from "
        "now on training waits while a checkpoint is written, which changes nothing else"
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
        f"out of memory, at 4.096 GB more, for the checkpoint of step 8{THERE}{where} is whole; to go on: end other "
        r"programs or raise this one's limit \(.*\), then give the same command again",
        str(raised.value),
    ), str(raised.value)
    assert checkpoint.newest(run.checkpoints)[0].step == 4


def remedies(text):
    """The commands that a refusal names, as they are typed, without the program's name."""
    return [shlex.split(each)[1:] for each in text.split("to go on: ")[1].split("; or ") if each.startswith("unstir ")]


def test_the_remedy_of_a_grid_continues_a_run_that_is_distilled(trained, command, tmp_path, monkeypatch):
    teacher, _ = trained("teacher")
    asked = ("distill", teacher.path, "--out", tmp_path / "a fast one", "--length", "2 steps")
    for since in (0, 1):  # before the first step, and after the last one
        with monkeypatch.context() as patch:
            lacking(patch, models, "draw", CPU, most=2, since=since)
            [continued] = remedies(refusal(command(*asked)))
            assert continued[-2:] == ["--grids.num", "2"]
            assert command(*continued)[0] == 0
        assert Run.open(tmp_path / "a fast one").newest_step() == 2
        assert command(*asked)[0] == 0
        shutil.rmtree(tmp_path / "a fast one")


def test_the_remedies_of_a_held_out_loss_serve_a_finished_run(trained, command, monkeypatch):
    run, store = trained(**MEASURED)
    lines = run.held_out()
    lacking(monkeypatch, held_out, "denoising_loss", CPU, most=3)
    for which in (0, 1):
        run.save_config()  # as it was before the other remedy
        log.write(run.held_out_file, lines[:-1])
        with pytest.raises(OutOfMemoryError) as raised:
            held_out.catch_up(Run.open(run.path), store)
        assert command(*remedies(str(raised.value))[which])[0] == 0
        assert held_out.catch_up(Run.open(run.path), store) == 1


def test_of_a_gpu_other_memory_and_other_words_are_named(make_run, monkeypatch):
    run, _ = make_run()
    monkeypatch.setattr(resources, "taken", lambda device: 0)
    monkeypatch.setattr(resources, "reachable", lambda device: 8e9 if device.type == "cuda" else 3e9)
    cuda = torch.device("cuda:0")
    for block in (out_of_memory.for_grid(run, 4, cuda), out_of_memory.for_held_out(run, 4, cuda, 6, 4)):
        with pytest.raises(OutOfMemoryError) as raised, block:
            raise GPU
        assert "can have 8.0 GB of cuda:0; " in str(raised.value) and "ulimit" not in str(raised.value)
        assert str(raised.value).endswith("; or end other programs on that GPU, then give the same command again")
    host = pytest.raises(
        OutOfMemoryError, match=r"can have 3.0 GB of memory; .*ulimit"
    )  # where its tensors are by then
    with host, out_of_memory.for_checkpoint(run, 4):
        raise CPU
