"""What is named in the place of something else is recognised, and the message says what to type."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unstir.runs.run import Run
from unstir.train.trainer import Trainer

FILE = "runs/r1/weights/step-00000001.safetensors"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Images, a file named as ONNX's, nothing, and a place for a run."""
    shelf = tmp_path_factory.mktemp("shelf")
    for name in ("few", "ox", "empty"):
        (shelf / name).mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(shelf / "few/1.png")
    (shelf / "ox/model.onnx").write_bytes(b"\x08\x08")
    return shelf


@pytest.fixture
def there(shelf, monkeypatch, make_run):
    """The shelf, with a run of one step, as the present folder."""
    monkeypatch.chdir(shelf)
    if not (shelf / "runs").exists():
        run, store = make_run("r1", train__length="1 step")
        Trainer(run, store).run()
        (shelf / "runs").mkdir()
        run.path.rename(shelf / "runs/r1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train few", ["neither a recipe"]),
        ("train runs/r1", ["is a run", "train --out runs/r1"]),
        ("train digit", ["did you mean digits?"]),
        ("sample runs/rr1", ["runs/rr1 does not exist"]),
        ("data inspect few", ["few is no packed store", "unstir data pack"]),
        ("sample runs/r1 --num", ["--num"]),
        ("sample", ["RUN"]),
        ("sample few", ["few holds no run"]),
        ("push few me/x", ["few holds no run"]),
        ("report few", ["few holds no run"]),
        ("sample few/1.png", ["holds no run"]),
        ("sample ox/model.onnx", ["holds no run"]),
        ("report runs/r1 runs/../runs/r1", ["runs/r1 is named twice"]),
        ("train digits --out q --train.init ox/model.onnx", ["is ONNX", "no weights"]),
        ("import ox/model.onnx --out i", ["is ONNX", "no network to import"]),
        ("import empty --out i", ["no folder of diffusers", "OWNER/NAME"]),
        (f"import {FILE} --out i", ["needs no import", "name the run"]),
    ],
)
def test_what_it_is_and_what_to_type_is_said(there, command, refused, arguments, words):
    refused(command(*arguments.split()), *words)


def test_a_run_whose_config_is_gone_is_no_run_and_none_begins_there(there, command, refused, tmp_path):
    shutil.copytree("runs/r1", broken := tmp_path / "broken")
    (broken / "config.toml").unlink()
    for name in ("sample", "doctor", "report", "evaluate"):
        refused(command(name, broken), f"{broken} holds no run")
    refused(command("train", "digits", "--out", broken), f"{broken} is not empty")


def test_a_store_is_no_run_and_no_images(there, command, refused, digits):
    for word in ("doctor", "evaluate", "sample", "likelihood", "report"):
        refused(command(word, digits), f"{digits} holds no run")
    words = "evaluate", "--images", digits, "--store", digits
    refused(command(*words), f"{digits} is a store and no images; name it as the store")


def test_what_is_no_command_no_number_and_no_set_of_images_is_said_so(there, command, refused, digits):
    refused(command("--vers"), "unstir has no option '--vers'. Did you mean unstir --version?")
    refused(command("smaple"), "unstir has no command 'smaple'. Did you mean unstir sample?")
    refused(command("sample", "runs/r1", "--num", ""), '--num "" must be a whole number')
    refused(command("sample", "runs/r1", "--guidance="), '--guidance "" must be a number')
    refused(command("verify", "--plot", "nowhere/t.png"), "--plot nowhere/t.png cannot be made: nowhere is no folder")
    refused(command("verify", "--plot", "t.jpg"), "--plot t.jpg must end in .png")
    Path("program.py").write_text("print(1)")
    refused(command("evaluate", "--images", "program.py", "--store", digits), "program.py")
    refused(command("verify", "--plot", "few"), "--plot few is a folder; name a .png file in it")
    refused(command("verify", "--plot", "program.py/t.png"), "program.py is no folder; make it")


def test_a_name_almost_that_of_a_source_is_answered_with_it(there, command, refused):
    refused(command("data", "pack", "Digts", "--out", "s"), "Digts does not exist; did you mean digits?")
    assert "digits?" not in refused(command("data", "pack", "photos", "--out", "s"), "photos")


def test_commands_that_are_printed_take_a_folder_with_a_space_in_its_name(there, command, refused, tmp_path):
    folder = Path(shutil.copytree("runs/r1", tmp_path / "my run"))
    assert shlex.split(Run.open(folder).going_on)[2] == f"{folder}/config.toml"
    refused(command("sample", folder, "--sampler", "consistency"), f"unstir distill '{folder}' --out")
    for weights in ("weights", "checkpoints"):
        shutil.rmtree(folder / weights)
    refused(command("sample", folder), f"unstir train --out '{folder}'")
