"""Recipe files of the user's own: what they may leave out, and how a wrong one is named."""

import pytest

import tiny_command
from refusals import refused
from tiny_command import tiny
from unstir.runs import recipes, toml
from unstir.runs.run import Run

unstir, here = tiny_command.unstir, tiny_command.here


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[train]\nlrr = 1", ["mine.toml", "train.lrr", "train.lr"]),
        ("[trian]\nlr = 1", ["mine.toml", "trian is unknown; did you mean train?"]),
        ("[train]\nlearning_rate = 1", ["did you mean train.lr?"]),
        ("[data]\nheldout = 0.1", ["did you mean data.held_out?"]),
        ("lr = 1", ["did you mean train.lr?"]),
        ('recipe = ["digits"]', ["mine.toml", "cifar10-small"]),
        ('recipe = "digit"', ["mine.toml", "digit", "cifar10-small"]),
        ('[train]\nlr = "fast"', ["mine.toml", "train.lr", "fast"]),
        ('[train]\nlr = "0.1"', ["mine.toml", "train.lr", "number"]),
        ("[train]\nlr = true", ["train.lr=true", "a valid number"]),
        ("[train]\nbatch_size = 1e3", ["train.batch_size=1000.0", "integer"]),
        ("[model]\nmults = [1, true]", ["model.mults=true", "integer"]),
        ("[data]\nflip = 1", ["mine.toml", "data.flip"]),
        ("[model]\nmults = 3", ["mine.toml", "model.mults"]),
        ("[train\nlr = 1", ["mine.toml"]),
        ("\x00", ["mine.toml"]),
        ("[train]\nlr = 2020-01-01", ["mine.toml", "train.lr"]),
    ],
)
def test_a_wrong_recipe_file_is_named_with_its_key(unstir, tmp_path, toml, words):
    (tmp_path / "mine.toml").write_text(toml)
    refused(unstir("train", "mine.toml"), *words)
    assert not (tmp_path / "runs").exists()


def test_a_recipe_file_is_a_recipe_and_options_win(unstir, tmp_path):
    (tmp_path / "mine.toml").write_text('seed = 5\nrecipe = "digits"\n[model]\nmults = [1]\nattention = []\n')
    assert unstir("train", "mine.toml", *tiny())[0] == 0
    run = Run.open("runs/mine")
    assert run.config.seed == 5 and run.config.recipe == "digits" and run.config.train.lr == 4e-3
    assert run.config.model.mults == (1,) and run.config.model.in_channels == 1 and run.config.model.channels == 8


def test_a_whole_config_is_a_recipe_too(unstir, here, tmp_path):
    assert unstir("train", "here/config.toml", "--out", "again")[0] == 0
    assert Run.open("again").config == Run.open("here").config
    pictures = [(tmp_path / name / "samples/images-00000048.png").read_bytes() for name in ("here", "again")]
    assert pictures[0] == pictures[1]


def test_a_config_without_a_recipe_has_the_defaults_beside_its_own_data_and_network(tmp_path):
    own = {"train": {"lr": 0.5}, "data": {"source": "photos"}, "model": {"channels": 64}}
    (tmp_path / "few.toml").write_text('train.lr = 0.5\ndata.source = "photos"\nmodel.channels = 64\n')
    assert recipes.load_recipe(str(tmp_path / "few.toml")) == toml.from_dict(own, "test")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", "no data.source and no model.channels;"),
        ("[train]\nlr = 0.5", "no data.source and no model.channels;"),
        ('[data]\nsource = "digits"', "no model.channels;"),
        ('[data]\nsource = "digits"\n[model]\nmults = [1, 2]', "no model.channels;"),
        ("[model]\nchannels = 32", "no data.source;"),
    ],
)
def test_a_file_that_says_too_little_does_not_start_the_large_network(unstir, tmp_path, text, missing):
    (tmp_path / "few.toml").write_text(text)
    refused(unstir("train", "few.toml"), "few.toml names no recipe", missing, 'recipe = "mnist"')
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()
