"""The command line as a person uses it: what it makes, what it refuses, and how it is interrupted."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from conftest import without_charts
from processes import Command
from unstir.runs import recipes, toml
from unstir.runs.run import Run


def tiny(length="6 steps", log="2 steps", checkpoint="1 epoch"):
    """Options that make a run of seconds."""
    words = (
        "--model.channels 8 --model.groups 4 --train.batch_size 8 --train.dtype float32 --diffusion.T 20 "
        "--diffusion.beta_T 0.3 --grids.num 4 --grids.steps 3 --grids.log_spaced 1 --log.held_out_images 4"
    )
    spans = (
        "--train.length",
        length,
        "--train.warmup",
        "0 steps",
        "--log.every",
        log,
        "--checkpoint.every",
        checkpoint,
    )
    return [*words.split(), *spans]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture
def unstir(tmp_path, monkeypatch, command):
    """unstir("train", ...) -> (status, standard output, standard error), run in an empty folder, with blank charts."""
    monkeypatch.chdir(tmp_path)
    without_charts(monkeypatch)
    return command


@pytest.fixture
def here(unstir, digits, shared, tmp_path):
    """The folder "here" of a tiny run, trained by the command line once and copied."""

    def make(folder):
        assert unstir("train", *tiny(), "--data.store", digits, "--out", folder)[0] == 0

    return shutil.copytree(shared("run-of-the-command", make), tmp_path / "here")


def refused(result, *words):
    """The call was a user's mistake: status 2, one line, no traceback, and it says what is named."""
    status, out, err = result
    assert status == 2 and out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("unstir: ") and "Traceback" not in err, err
    for word in words:
        assert word in err, err
    return err


def test_train_sample_and_inspect_make_what_they_say(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unstir = command  # with real charts
    status, out, err = unstir("train", *tiny(), "--out", "here")
    assert status == 0
    assert "here/samples/images-00000048.png" in out and "here/curves.png" in out
    assert (
        "here: a new run by the recipe digits, " in err
        and "step 6 of 6" in err
        and "8x1x8x8" not in err
        and "images/s" in err
        and "lr 3.73e-03" in err
    )
    run = Run.open("here")
    assert run.config.recipe == "digits" and run.config.train.lr_period == "6 steps"
    assert run.config == toml.load(tmp_path / "here/config.toml")
    for name in ("noise", "start", "images-00000048"):
        picture = pixels(tmp_path / f"here/samples/{name}.png")
        assert picture.ndim == 2 and picture.shape[1] > 100 and picture.std() > 10
    assert pixels(tmp_path / "here/curves.png").shape[1] > 600

    status, out, err = unstir("train", *tiny(), "--out", "here")
    assert status == 0 and "here is finished, at step 6" in out and "a new run" not in err
    assert '--train.length "12 steps" --train.lr_period "12 steps"' in out

    status, out, _ = unstir("sample", "here", "--num", 5, "--out", "made", "--steps", 7, "--batch-size", 2)
    assert status == 0 and "5 in made" in out
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == [f"{i:06d}.png" for i in range(5)] + ["grid.png", "noise.png", "settings.json"]
    images = [pixels(tmp_path / f"made/{i:06d}.png") for i in range(5)]
    assert all(image.shape == (8, 8) for image in images) and len({image.tobytes() for image in images}) == 5

    status, out, _ = unstir("data", "inspect", "data/digits")
    assert (
        status == 0
        and "8x8 grey" in out
        and "held out" in out
        and (tmp_path / "data/digits/contact-sheet.png").exists()
    )


def test_image_i_is_the_same_in_any_batch_and_job(unstir, here, tmp_path):
    made = {}
    for name, num, size in (("one", 6, 1), ("four", 6, 4), ("all", 9, 9)):
        assert unstir("sample", "here", "--num", num, "--batch-size", size, "--out", name)[0] == 0
        made[name] = np.stack([pixels(tmp_path / name / f"{i:06d}.png") for i in range(6)])
    assert abs(made["one"] - made["four"]).max() <= 1 and abs(made["one"] - made["all"]).max() <= 1
    status, _, _ = unstir("sample", "here", "--num", 6, "--batch-size", 4, "--out", "seed1", "--seed", 1)
    other = np.stack([pixels(tmp_path / "seed1" / f"{i:06d}.png") for i in range(6)])
    assert status == 0 and abs(other - made["four"]).max() > 20


def test_a_sampling_job_goes_on_where_it_was(unstir, here, tmp_path):
    assert unstir("sample", "here", "--num", 7, "--batch-size", 2, "--out", "whole")[0] == 0
    assert unstir("sample", "here", "--num", 3, "--batch-size", 2, "--out", "parts")[0] == 0
    kept = (tmp_path / "parts/000001.png").stat().st_mtime_ns
    assert unstir("sample", "here", "--num", 7, "--batch-size", 5, "--out", "parts")[0] == 0  # goes on by twos
    assert (tmp_path / "parts/000001.png").stat().st_mtime_ns == kept
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()
    refused(
        unstir("sample", "here", "--num", 7, "--out", "parts", "--seed", 1),
        "(chain.seed is 0 there, 1 was asked)",
        "another folder",
    )
    refused(unstir("sample", "here", "--out", "here"), "not empty", "--out")


def test_a_run_is_continued_by_its_folder_alone(unstir, here):
    refused(unstir("train", "--out", "here", "--train.length", "8 steps"), "cosine", '--train.lr_period "8 steps"')
    status, *_ = unstir("train", "--out", "here", "--train.length", "8 steps", "--train.lr_period", "8 steps")
    assert status == 0 and Run.open("here").config.train.length == "8 steps"
    assert Run.open("here").config.model.channels == 8
    assert [line["step"] for line in Run.open("here").metrics()] == [2, 4, 6, 8]


def test_images_of_one_run_are_not_passed_off_as_those_of_another(unstir, here):
    assert unstir("train", *tiny(), "--out", "other", "--seed", 1)[0] == 0
    assert unstir("sample", "here", "--num", 2, "--out", "made")[0] == 0
    refused(unstir("sample", "other", "--num", 2, "--out", "made"), "other settings (weights is ", "--out")


@pytest.mark.parametrize(
    "wrong",
    ["--steps 99", "--num 0", "--batch-size 0", "--label 3", "--checkpoint 77", "--device cuda:9", "--spacing odd"],
)
def test_a_refused_sample_leaves_nothing_in_the_way_of_the_next(unstir, here, tmp_path, wrong):
    refused(unstir("sample", "here", "--out", "made", *wrong.split()), wrong.split()[1])
    assert not (tmp_path / "made").exists()


def test_a_mistake_does_not_stay_behind_in_a_run(unstir, here):
    before = Run.open("here").config
    refused(unstir("train", "--out", "here", "--train.device", "cuda:7", "--train.length", "9 steps"), "cuda:7")
    assert Run.open("here").config == before
    assert unstir("train", "--out", "here", "--train.length", "6 steps")[0] == 0


def test_a_run_killed_at_its_birth_is_no_hindrance(unstir, tmp_path):
    (tmp_path / "here").mkdir()
    for name in ("data.json", ".config.toml.partial", ".lock"):
        (tmp_path / "here" / name).touch()
    assert unstir("train", *tiny(), "--out", "here")[0] == 0
    assert not list((tmp_path / "here").glob(".*.partial"))


def test_other_data_settings_have_another_store(unstir, tmp_path):
    assert unstir("train", *tiny(), "--out", "a")[0] == 0
    assert unstir("train", *tiny(), "--data.held_out", "0.3", "--out", "b")[0] == 0
    stores = {Run.open(name).config.data.store for name in ("a", "b")}
    assert len(stores) == 2 and str(tmp_path / "data/digits") in stores
    refused(
        unstir("train", *tiny(), "--data.source", "data/digits", "--data.size", 16, "--out", "c"), "8x8", "data.size"
    )
    status, *_ = unstir(
        "train", "digits", *tiny("8 steps"), "--data.held_out", "0.3", "--train.lr_period", "8 steps", "--out", "b"
    )
    assert status == 0  # named again with its recipe, a run still finds its own store


def test_a_damaged_store_is_found_before_training(unstir, tmp_path):
    assert unstir("train", *tiny(), "--out", "a")[0] == 0
    file = tmp_path / "data/digits/train.images.npy"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    refused(unstir("train", *tiny(), "--out", "b"), "data/digits", "damaged")


def test_classes_are_learned_and_asked_for(unstir, tmp_path):
    assert unstir("train", *tiny(), "--model.num_classes", 10, "--out", "here")[0] == 0
    assert unstir("sample", "here", "--num", 2, "--label", 3, "--out", "threes")[0] == 0
    refused(unstir("sample", "here", "--num", 2, "--label", 10), "label=10", "0..9")
    refused(
        unstir("train", *tiny(), "--model.num_classes", 9), "num_classes=9", "10 classes; set --model.num_classes 10"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train --train.lrr 1", ["--train.lrr", "Did you mean --train.lr"]),
        ("train --train.epochs 3", ["--train.epochs", "Did you mean --train.length"]),
        ("train --train.lr -1", ["train.lr", "-1", "more than 0"]),
        ("train --train.lr fast", ["train.lr", "fast", "number"]),
        ("train --model.mults 1 x", ["model.mults", "x"]),
        ("train --model.attention 7", ["attention", "level 7", "levels 0 to 1"]),
        ("train --model.dropout 1", ["model.dropout", "less than 1"]),
        ("train --diffusion.schedule cosin", ["diffusion.schedule", "cosin", "cosine"]),
        ("train --diffusion.beta_T 0.00001", ["beta_1", "beta_T", "--diffusion.beta_T 0.0001"]),
        ("train --diffusion.zero_terminal_snr --diffusion.predict eps", ["eps", "predict"]),
        ("train --train.length 3weeks", ["train.length", "epochs", "images"]),
        ("train --train.micro_batch 500", ["micro_batch=500", "batch_size"]),
        ("train --train.optimizer adam --train.weight_decay 0.1", ["weight_decay", "adamw"]),
        ("train --grids.steps 2000", ["grids.steps=2000", "use at most --grids.steps 1000"]),
        ("train --train.batch_size 5000", ["batch_size=5000", "at most --train.batch_size 1498"]),
        ("train --model.mults 1 2 2 2 2", ["8x8", "multiples of 16", ": --model.mults 1 2 2 2 --model.attention 1"]),
        ("train --data.channels 3", ["in_channels=1", "data.channels=3"]),
        ("train --train.device cuda:7", ["cuda:7", "auto"]),
        ("train --train.init nowhere.safetensors", ["nowhere.safetensors", "does not exist"]),
        ("train --log.every 0steps", ["log.every", "more than nothing"]),
        ("train --train.device hpu", ["hpu", "cuda"]),
        ("train --train.weight_decay inf", ["weight_decay", "inf"]),
        ("train nonsense", ["nonsense", "digits", "cifar10-small"]),
        ("train digit", ["'digit'", "did you mean digits?"]),
        ("train --data.flip true", ["'true'", "a switch takes no value: --data.flip or --data.no-flip"]),
        ("train cifar10_small", ["'cifar10_small'", "did you mean cifar10-small?"]),
        ("train missing.toml", ["missing.toml"]),
        ("train --data.source missing", ["missing"]),
        ("train digits extra", ["extra"]),
        ("trian", ["trian", "train"]),
        ("sample nowhere", ["nowhere does not exist; name the folder of a run"]),
        ("sample", ["RUN"]),
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
        ("[trian]\nlr = 1", ["mine.toml", "unknown key trian; did you mean train?"]),
        ("[train]\nlearning_rate = 1", ["did you mean train.lr?"]),
        ("[data]\nheldout = 0.1", ["did you mean data.held_out?"]),
        ("lr = 1", ["did you mean train.lr?"]),
        ('recipe = ["digits"]', ["mine.toml", "cifar10-small"]),
        ('recipe = "digit"', ["mine.toml", "digit", "cifar10-small"]),
        ('[train]\nlr = "fast"', ["mine.toml", "train.lr", "fast"]),
        ('[train]\nlr = "0.1"', ["mine.toml", "train.lr", "number"]),
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
    refused(unstir("train", "few.toml"), "few.toml names no recipe", missing, 'recipe = "digits"')
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


def test_less_than_was_trained_is_nothing_to_do_and_changes_nothing(unstir, here):
    before = Run.open("here").config
    status, out, _ = unstir("train", "--out", "here", "--train.length", "3 steps")
    assert status == 0 and "finished, at step 6, beyond the 3 asked for: nothing to do" in out
    assert '--train.length "12 steps"' in out and "to begin anew: another --out" in out
    assert Run.open("here").config == before


def test_a_run_that_was_asked_for_less_by_its_recipe_says_that_it_goes_on(unstir, tmp_path):
    assert unstir("train", "digits", *tiny(), "--out", "here")[0] == 0
    file = tmp_path / "here/config.toml"  # as if it had been asked for 12 steps and stopped at 6
    file.write_text(file.read_text().replace('length = "6 steps"', 'length = "12 steps"'))
    status, out, _ = unstir("train", "digits", *tiny("3 steps"), "--out", "here")
    assert status == 0 and "at step 6 of 12, beyond the 3 asked for" in out
    assert 'length = "12 steps"' in file.read_text()


def test_a_store_that_is_none_is_refused_and_not_remembered(unstir, here):
    before = Run.open("here").config
    longer = ["--train.length", "8 steps", "--train.lr_period", "8 steps"]
    refused(unstir("train", "--out", "here", *longer, "--data.store", "typo"), "typo", "no packed store")
    refused(unstir("train", "--out", "here", *longer, "--data.source", "typo"), "data.source", "typo")
    assert Run.open("here").config == before


def test_a_small_job_does_not_slow_the_large_one_after_it(unstir, here, tmp_path):
    for num in (1, 5):
        assert unstir("sample", "here", "--num", num, "--out", "made")[0] == 0
    assert json.loads((tmp_path / "made/settings.json").read_text())["batch_size"] == 64


def test_a_job_goes_on_from_the_slim_file_of_the_same_weights(unstir, here):
    assert unstir("sample", "here", "--num", 2, "--out", "made")[0] == 0
    for path in Run.open("here").checkpoints.iterdir():
        path.unlink()
    assert unstir("sample", "here", "--num", 4, "--out", "made")[0] == 0


def test_sampling_falls_back_from_a_damaged_newest_file(unstir):
    assert unstir("train", *tiny(checkpoint="4 steps"), "--out", "here")[0] == 0
    run = Run.open("here")
    for folder in (run.checkpoints, run.weights):
        (folder / "step-00000006.safetensors").write_bytes(b"junk")
    assert unstir("sample", "here", "--num", 1, "--out", "made")[0] == 0


def test_the_hint_how_to_go_on_is_taken(unstir):
    warm = ["--train.warmup", "5 steps"]  # the warm-up takes nearly the whole run, and the cosine a single step
    short = [word for word in tiny() if word not in ("--train.warmup", "0 steps")]
    assert unstir("train", *short, *warm, "--out", "here")[0] == 0
    _, out, _ = unstir("train", "--out", "here")
    hint = shlex.split(out.split("To go on: ")[1].split(";")[0])
    assert "--train.lr_period" in hint
    assert hint[:2] == ["unstir", "train"] and unstir(*hint[1:])[0] == 0
    assert Run.open("here").metrics()[-1]["step"] == 12


def test_refused_files_are_spoken_of_when_training_packs(unstir, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(tmp_path / f"photos/{i}.png")
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    status, out, err = unstir("train", *tiny(), "--data.source", "photos", "--out", "here")
    assert status == 0 and "unstir: 1 file was refused;" in err and "unstir data inspect" in err
    assert "11 training and 1 held-out images of 1x8x8" in err and "parameters" in err
    assert "photos-" in out


def test_colours_that_are_lost_are_spoken_of(unstir, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), (20 * i, 10, 200), np.uint8)).save(tmp_path / f"photos/{i}.png")
    status, _, err = unstir("train", *tiny(), "--data.source", "photos", "--out", "here")
    assert status == 0 and "12 images had colours and were packed as grey" in err and "--data.channels 3" in err


def test_images_left_out_and_labels_lost_are_spoken_of(unstir, tmp_path):
    picture = Image.fromarray(np.zeros((8, 8), np.uint8))
    for name in (*(f"split/{part}/{i}" for part in ("train", "test") for i in range(12)), "split/more/1", "split/2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "split/train/again").symlink_to(tmp_path / "split")
    status, _, err = unstir("train", *tiny(), "--data.source", "split", "--out", "here")
    assert status == 0 and "2 left out: outside the train and test folders; unstir data inspect data/split-" in err
    assert "1 left out: a link to a folder" in err
    for name in (*map(str, range(12)), "few/1", "few/2"):
        (tmp_path / "flat" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"flat/{name}.png")
    status, _, err = unstir("train", *tiny(), "--data.source", "flat", "--out", "there")
    assert status == 0 and "2 packed without a label: the folder is not taken for a class" in err


def test_a_store_with_a_byte_changed_is_not_shown_as_whole(unstir, tmp_path):
    assert unstir("data", "pack", "digits", "--out", "digits")[0] == 0
    images = tmp_path / "digits/train.images.npy"
    content = bytearray(images.read_bytes())
    content[5000] ^= 1
    images.write_bytes(content)
    refused(unstir("data", "inspect", "digits"), "digits", "changed or damaged", "pack it again")


def test_every_setting_but_the_listed_ones_is_fixed_once_a_run_exists(unstir, here):
    run = Run.open("here")
    for key, value in {"train.lr": "0.5", "model.dropout": "0.3", "seed": "7", "train.ema_decay": "0.5"}.items():
        message = refused(unstir("train", "--out", "here", f"--{key}", value), key, value, "unstir train --help")
        assert repr(toml.flat(run.config)[key]) in message
    assert Run.open("here").config == run.config


def test_a_folder_that_is_no_run_is_left_alone(unstir, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    refused(unstir("train", *tiny(), "--out", "mine"), "mine", "not empty", "--out")
    (tmp_path / "file").write_text("x")
    refused(unstir("train", *tiny(), "--out", "file"), "file")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_other_data_under_the_same_run_is_refused(unstir, here):
    assert unstir("data", "pack", "digits", "--channels", 1, "--held-out", 0.3, "--out", "other")[0] == 0
    refused(unstir("train", "--out", "here", "--data.store", "other"), "content hash", "--data.store")


def test_two_trainers_do_not_share_a_run(unstir, here):
    with Run.open("here").lock():
        for longer in ([], ["--train.length", "9 steps", "--train.lr_period", "9 steps"]):
            refused(unstir("train", "--out", "here", *longer), "another process")
        assert Run.open("here").config.train.length == "6 steps"
    assert unstir("train", "--out", "here", *longer)[0] == 0


def test_help_lists_the_recipes_and_starts_fast():
    began = time.perf_counter()
    shown = subprocess.run(
        [sys.executable, "-m", "unstir", "train", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - began < 5
    for name in ("digits", "cifar10", "cifar10-report", "cifar10-small", "--train.lr", "--diffusion.beta_T"):
        assert name in shown.stdout
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, unstir.cli; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "False"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_continues(tmp_path, number, status):
    words = ["train", *tiny("100000 steps", log="1 step")]
    child = Command(words, tmp_path, out=tmp_path / "out", err=tmp_path / "err")
    metrics = tmp_path / "runs/digits/metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.05)
    child.send_signal(number)
    assert child.wait(timeout=20) == status
    out, err = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert "the same command continues" in out and "Traceback" not in err
    run = Run.open(tmp_path / "runs/digits")
    step = run.newest_step()
    assert step == len(run.metrics()) >= 4
    child = Command(words, tmp_path)
    while len(run.metrics()) <= step:
        assert time.monotonic() < deadline + 60 and child.poll() is None
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert [line["step"] for line in run.metrics()] == list(range(1, len(run.metrics()) + 1))


def test_a_second_interrupt_ends_at_once_and_loses_nothing(tmp_path):
    child = Command(["train", *tiny("100000 steps", checkpoint="1 step")], tmp_path)
    folder, deadline = tmp_path / "runs/digits/checkpoints", time.monotonic() + 60
    while not (folder.is_dir() and any(folder.glob("step-*"))):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(timeout=5) == 130
    run = Run.open(tmp_path / "runs/digits")
    assert run.model().denoiser is not None
    assert json.loads((run.path / "data.json").read_text())["shape"] == [1, 8, 8]


def test_another_recipe_is_named_as_what_a_run_cannot_go_on_with(unstir, here):
    for shorter in ((), ("--train.length", "1 step", "--train.warmup", "0 steps")):
        status, out, err = unstir("train", "digits-guided", *shorter, "--out", "here")
        assert status == 2 and out == "" and err.count("\n") == 1
        assert "the run began with recipe digits, digits-guided was asked, but a run keeps its settings: " in err
        assert "config.toml" not in err and "start another run with --out" in err
