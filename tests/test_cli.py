"""The command line as a person uses it: what it makes, with recipe files too, and how it refuses mistakes."""

import pytest

import tiny_command
from conftest import pixels_in
from refusals import refused
from tiny_command import pixels, tiny
from unstir.runs import recipes, toml
from unstir.runs.run import Run

unstir, here = tiny_command.unstir, tiny_command.here


def test_train_sample_and_inspect_make_what_they_say(unstir, charts, tmp_path):
    status, out, err = unstir("train", "digits", *tiny(), "--out", "here")
    assert status == 0
    assert "images-00000048.png" in out and "here/curves.png" in out
    assert all(words in err for words in ("recipe digits, ", "step 6 of 6", "images/s", "lr 3.73e-03"))
    run = Run.open("here")
    assert run.config.recipe == "digits" and run.config.train.lr_period == "6 steps"
    assert run.config == toml.from_dict(toml.read(tmp_path / "here/config.toml"), "here")
    for name in ("noise", "start", "images-00000048"):
        picture = pixels(tmp_path / f"here/samples/{name}.png")
        assert picture.ndim == 2 and picture.shape[1] > 100 and picture.std() > 10
    assert pixels(tmp_path / "here/curves.png").shape[1] > 600

    status, out, err = unstir("train", "digits", *tiny(), "--out", "here")
    assert status == 0 and "at step 6" in out and "new run" not in err
    assert out.count('"12 steps"') == 2

    assert "5 in made" in unstir.done("sample", "here", "--num", 5, "--out", "made", "--steps", 7, "--batch-size", 2)
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == [f"{i:06d}.png" for i in range(5)] + ["grid.png", "noise.png", "settings.json"]
    images = [pixels(tmp_path / f"made/{i:06d}.png") for i in range(5)]
    assert all(image.shape == (8, 8) for image in images) and len({image.tobytes() for image in images}) == 5

    status, out, _ = unstir("data", "inspect", "data/digits")
    assert status == 0 and "8x8 grey" in out and (tmp_path / "data/digits/contact-sheet.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train digits --model.attention 7", ["attention", "level 7", "levels 0 to 1"]),
        ("train digits --model.dropout 1", ["model.dropout", "less than 1"]),
        ("train digits --diffusion.schedule cosin", ["diffusion.schedule", "cosin", "cosine"]),
        (
            "train digits --diffusion.schedule linear --diffusion.options.beta_T 0.00001",
            ["--diffusion.options.beta_1 0.0001 and beta_T=1e-05"],
        ),
        ("train digits --diffusion.schedule sigmoid --diffusion.options.tau 0.05", ["beta=0 is outside (0, 1]"]),
        ("train digits --diffusion.schedule cosine --diffusion.options.offset -0.01", ["beta=-", "is outside (0, 1]"]),
        ("sample cifar10-small --ema-width 0.1", ["--ema-width 0.1 needs power averages"]),
        ("train digits --diffusion.zero_terminal_snr --diffusion.predict eps", ["eps", "predict"]),
        ("train digits --train.micro_batch 500", ["--train.micro_batch 500 exceeds", "batch_size"]),
        ("train digits --train.optimizer adam --train.weight_decay 0.1", ["weight_decay", "adamw"]),
        ("train digits --train.batch_size 5000", ["--train.batch_size 5000 exceeds", "use --train.batch_size 1498"]),
        (
            "train digits --model.mults 1 2 2 2 2",
            ["8x8", "multiples of 16", "use --model.mults 1 2 2 2 --model.attention 1"],
        ),
        ("train digits --data.channels 3", ["--model.in_channels 1", "data.channels=3"]),
        ("train digits --train.device cuda:7", ["cuda:7", "auto"]),
        ("train digits --train.init nowhere.safetensors", ["nowhere.safetensors", "does not exist"]),
        ("train digits --log.every 0steps", ["log.every", "more than nothing"]),
        ("train digits --train.device hpu", ["hpu", "cuda"]),
        ("train --data.flip true", ["true is neither a recipe"]),
        ("train missing.toml", ["missing.toml"]),
        ("train digits --data.source missing", ["missing"]),
        ("train digits extra", ["extra"]),
        ("train digits --model.num_classes 9", ["--model.num_classes 9", "use --model.num_classes 10"]),
        ("data inspect nowhere", ["nowhere", "data pack"]),
        ("data pack missing --out x", ["missing"]),
        ("data pack digits", ["--out"]),
    ],
)
def test_mistakes_are_one_line_with_the_remedy_and_leave_nothing(unstir, tmp_path, arguments, words):
    refused(unstir(*arguments.split()), *words)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[train]\nlrr = 1", ["mine.toml", "train.lrr", "train.lr"]),
        ("[trian]\nlr = 1", ["mine.toml", "trian is unknown; did you mean train?"]),
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
    assert pixels_in(tmp_path / "here/samples") == pixels_in(tmp_path / "again/samples")


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
