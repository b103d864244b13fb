"""A wrong value is shown as it was typed, and what is to be typed instead as options to paste."""

import pytest

from unstir.cli.messages import Options
from unstir.errors import UserError


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    monkeypatch.setattr("unstir.train.launch.open_data", lambda *_: pytest.fail("training began"))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("--train.warmup", "6 steps", '--train.warmup "6 steps"'),
        ("--train.init", "", '--train.init ""'),
        ("--out", "my runs/$1", "--out 'my runs/$1'"),
        ("--data.flip", False, "--data.no-flip"),
        ("--data.flip", True, "--data.flip"),
        ("--seed", 3, "--seed 3"),
        ("--model.mults", [1, 2], "--model.mults 1 2"),
    ],
)
def test_a_setting_as_an_option(name, value, text):
    assert Options([name])({name.removeprefix("--"): value}) == text


NAMES = "--num", "--batch-size", "--reference", "--label", "--guidance", "--data.channels", "--model.channels", "RUN"


@pytest.mark.parametrize(
    ("settings", "words", "text"),
    [
        ({"batch_size": 0}, ["--batch-size", "0"], "--batch-size 0"),
        ({"batch_size": 64}, [], "--batch-size 64"),
        ({"guidance": 2.0}, ["--guidance", "3"], "--guidance 2"),
        ({"channels": 2}, ["--model.channels", "2"], "--model.channels 2"),
        ({"channels": 2}, [], "channels=2"),
        ({"num_reference": None}, [], "--reference"),
        ({"run": None}, [], "run"),
        ({"num": 1, "label": "cat"}, [], "--num 1 --label cat"),
    ],
)
def test_arguments_of_the_library_as_options_of_a_command(settings, words, text):
    assert Options(NAMES, words)(settings) == text


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--train.length", "60/0 steps"], '--train.length "60/0 steps" must be a whole number and a unit, such as '),
        (["--train.length", ""], '--train.length "" must be a whole number and a unit'),
        (["--train.length=-5 steps"], '--train.length "-5 steps" must be a whole number'),
        (["--train.warmup", "-1 epoch", "--seed", "3"], '--train.warmup "-1 epoch" must be a whole number'),
        (["--train.lr", "-1e-4"], "--train.lr -1e-4 must be greater than 0"),
        (["--train.lr_period", "x" * 99], f"--train.lr_period {'x' * 37}... must be a whole number"),
        (["--train.lr", "nan"], "--train.lr nan must be a finite number"),
        (["--grids.epochs", "3", "-1"], "--grids.epochs -1 must be greater than"),
        (["--model.mults"], "--model.mults must have at least 1 item"),
        (["--model.heads", "7"], "--model.heads 7 does not divide the 64 channels"),
        (["--grids.eta", "0.5", "--grids.sampler", "ancestral"], "--grids.eta 0.5 is an option of ddim"),
        (["--grids.steps", "3000"], "use --grids.steps 1000\n"),
        (["--log.held_out_images", "1"], "use --log.held_out_images 2, or use --log.held_out_images 0\n"),
    ],
)
def test_a_wrong_value_is_shown_as_it_was_typed(unstir, refused, typed, says):
    assert says in refused(unstir("train", "digits", *typed))


def test_in_a_file_a_setting_stays_one():
    error = UserError("num", 0, "must be at least 1", {"num": 1}).at("mine.toml")
    assert error.line(Options(NAMES)) == str(error)


def test_a_folder_without_a_name_is_not_the_one_that_one_is_in(unstir, refused):
    for words in (
        ("sample", ""),
        ("train", "digits", "--out", ""),
        ("sample", "nowhere", "--out", ""),
        ("evaluate", " "),
        ("data", "inspect", "x", "--sheet="),
    ):
        refused(unstir(*words), "is no name of a file or folder")
