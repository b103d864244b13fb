"""What is named in the place of something else is recognised, and the message says what to type."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unstir.errors import UserError
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
        ("train few", ["it holds images", "--data.source few"]),
        ("train runs/r1", ["it is a run", "unstir train --out runs/r1"]),
        ("sample runs/rr1", ["runs/rr1 does not exist; did you mean runs/r1?"]),
        ("data inspect few", ["few is no packed store", "unstir data pack"]),
        ("sample runs/r1 --num", ["--num takes a value;"]),
        ("sample", ["RUN is required;"]),
        ("sample few", ["holds images and no run", "evaluate --images few", "train RECIPE --data.source few"]),
        ("push few me/x", ["holds images and no run"]),
        ("report few", ["holds images and no run"]),
        ("sample few/1.png", ["is a file and holds no run"]),
        ("sample runs", ["holds no run itself", "runs/r1"]),
        ("sample runs/r1/weights", ["name runs/r1"]),
        (f"evaluate {FILE}", ["name runs/r1"]),
        ("sample ox/model.onnx", ["is ONNX", "no run"]),
        ("evaluate ox", ["is ONNX", "no run"]),
        ("push ox/model.onnx me/x", ["is ONNX", "no run"]),
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
        refused(command(name, broken), f"{broken} holds images and no run")
    refused(command("train", "digits", "--out", broken), f"{broken} is not empty and holds no run")


def test_a_run_is_compared_with_others_alone(there, command, refused):
    refused(command("report", "runs/r1", "runs/../runs/r1"), "runs/r1 is named twice; name each run once")


def test_a_store_in_the_place_of_a_run_or_of_images_is_named_as_one(there, command, refused, digits):
    for words in (("doctor",), ("evaluate",), ("sample",), ("likelihood",), ("report",)):
        line = refused(command(*words, digits), f"{digits} is a packed store", f"unstir data inspect {digits}")
        assert "--images" not in line
    words = "evaluate", "--images", digits, "--store", digits
    refused(command(*words), f"{digits} is a store and no images; name it as the store")


def test_a_store_in_the_place_of_a_recipe_is_the_source_to_train_on(there, command, refused, digits, monkeypatch):
    line = refused(command("train", digits), "it is a packed store", f"unstir train RECIPE --data.source {digits}")
    assert "did you mean" not in line

    def stop(config, *_):
        raise UserError(f"trains on {config.data.source}")

    monkeypatch.setattr("unstir.train.launch.open_data", stop)
    typed = line.strip().split("unstir ")[-1].replace("RECIPE", "digits")
    refused(command(*typed.split()), f"trains on {digits}")


def test_of_a_path_that_is_absent_no_recipe_is_guessed(there, command, refused):
    assert "did you mean" not in refused(command("train", "data/digits"), "'data/digits' is neither a recipe")
    refused(command("train", "digit"), "did you mean digits?")


def test_what_is_no_command_no_number_and_no_set_of_images_is_said_so(there, command, refused, digits):
    refused(command("--vers"), "unstir has no option '--vers'. Did you mean unstir --version?")
    refused(command("smaple"), "unstir has no command 'smaple'. Did you mean unstir sample?")
    refused(command("sample", "runs/r1", "--num", ""), '--num "" must be a whole number, such as 3')
    refused(command("sample", "runs/r1", "--guidance="), '--guidance "" must be a number')
    refused(
        command("verify", "--plot", "nowhere/t.png"),
        "--plot nowhere/t.png cannot be made: nowhere is no folder",
    )
    refused(command("verify", "--plot", "t.jpg"), "--plot t.jpg must end in .png")
    Path("program.py").write_text("print(1)")
    refused(command("evaluate", "--images", "program.py", "--store", digits), "program.py")
    refused(command("verify", "--plot", "few"), "--plot few is a folder; name a PNG file in it")
    refused(command("verify", "--plot", "program.py/t.png"), "program.py is no folder; make it")


def test_a_name_almost_that_of_a_source_is_answered_with_it(there, command, refused):
    refused(command("data", "pack", "Digts", "--out", "s"), "Digts does not exist; did you mean digits?")
    assert "did you mean" not in refused(command("data", "pack", "photos", "--out", "s"), "photos")


@pytest.fixture
def packed_nothing(monkeypatch):
    def stop(config, folder, *_):
        raise UserError(f"begins {folder} on {config.data.source}")

    monkeypatch.setattr("unstir.train.launch.open_data", stop)


@pytest.mark.parametrize("name", ["runs/rr1", "run/r1", "./runs/r-1/", "runs/r 1"])
def test_a_run_that_is_near_a_mistyped_out_is_named(there, packed_nothing, command, refused, name):
    longer = ["--train.length", "200 epochs"]
    line = refused(command("train", "--out", name, *longer), "holds no run; did you mean runs/r1?")
    refused(command(*shlex.split(line.strip().split(": unstir ")[-1])), f"begins {Path(name)} on mnist")


@pytest.mark.parametrize(
    "given", ["--out fresh", "--out runs/rr1 --seed 2", "--out runs/r2", "--out runs/r11", "digits --out runs/rr1"]
)
def test_a_new_run_begins_beside_others(there, packed_nothing, command, refused, given, monkeypatch):
    def shut(path):  # as a folder of another user is to Path.is_file
        if path.parent.name == "shut":
            raise PermissionError
        return is_file(path)

    Path("runs/shut").mkdir(exist_ok=True)
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", shut)
    refused(command("train", *given.split()), "begins ")
