"""The recipe photos: what is chosen for images and minutes, at its borders, and the run that comes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refusals import refused, refusing
from unstir.runs.recipes import load_recipe
from unstir.runs.run import Run
from unstir.train import photos
from unstir.train.photos import BATCH, ENOUGH, MANY, Size, chosen, for_minutes, seen, snapshots

SMALL, MIDDLE, LARGE = Size(32, 32), Size(32, 64), Size(64, 64)
SPEEDS = {SMALL: 200.0, MIDDLE: 70.0, LARGE: 15.0}
BORDER = next(minutes for minutes in range(1, 1000) if seen(minutes, SPEEDS[MIDDLE]) >= ENOUGH)


@pytest.mark.parametrize(
    ("minutes", "size"), [(0.1, SMALL), (BORDER - 1, SMALL), (BORDER, MIDDLE), (30, MIDDLE), (600, LARGE)]
)
def test_the_largest_size_is_chosen_that_sees_enough_images(minutes, size):
    settings = chosen(400, minutes, SPEEDS, SPEEDS.__getitem__)
    assert (settings["data.size"], settings["model.channels"]) == size
    assert settings["train.length"] == f"{seen(minutes, SPEEDS[size])} images"
    assert settings["grids.log_spaced"] == snapshots(minutes, SPEEDS[size])


def test_a_single_size_is_taken_however_slow_it_is_and_less_is_enough_for_a_trained_network():
    assert chosen(400, 1, [LARGE], lambda size: 0.5)["data.size"] == 64
    assert chosen(400, BORDER - 1, SPEEDS, SPEEDS.__getitem__, enough=ENOUGH // 2)["model.channels"] == 64


@pytest.mark.parametrize(
    ("images", "batch", "augment"),
    [(1, 1, 0.12), (BATCH - 1, BATCH - 1, 0.12), (BATCH, BATCH, 0.12), (MANY - 1, BATCH, 0.12), (MANY, BATCH, 0.0)],
)
def test_batch_and_augmentation_follow_the_number_of_images(images, batch, augment):
    settings = chosen(images, 30, SPEEDS, SPEEDS.__getitem__)
    assert (settings["train.batch_size"], settings["train.augment"]) == (batch, augment)


@pytest.mark.parametrize("speed", [0.1, 10.0, 10_000.0])
def test_training_and_its_snapshots_fit_into_the_minutes(speed):
    for minutes in (1, 30, 600):
        possible = 60 * minutes * speed
        assert 1 <= snapshots(minutes, speed) <= 6 and 1 <= seen(minutes, speed) <= max(possible, 1)
        if possible > 8 * photos.SNAPSHOT:
            assert seen(minutes, speed) + photos.SNAPSHOT * (1 + snapshots(minutes, speed)) <= possible


WORDS = (
    "--data.size 8 --model.channels 8 --model.groups 4 --model.mults 1 --model.attention 0 --diffusion.T 20 "
    "--grids.num 2 --grids.steps 2 --log.held_out_images 0 --train.dtype float32"
)
TINY, SHORT = WORDS.split(), ("--train.length", "2 steps", "--train.warmup", "0 steps")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder "mine" of 24 photographs of several sizes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    Path("mine").mkdir()
    for number in range(24):
        image = noise.integers(0, 256, (9 + number % 3, 12, 3), np.uint8)
        Image.fromarray(image).save(f"mine/{number}.png")
    return Path("mine")


def test_the_run_keeps_what_was_chosen_and_the_same_command_continues_it(folder, command):
    words = "train", "photos", "--data.source", folder, "--minutes", 1000, *TINY, *SHORT, "--train.augment", "0.0"
    command.done(*words)
    config = Run.open("runs/photos").config
    assert config.recipe == "photos" and config.grids.log_spaced == 6 and config.data.flip
    assert config.train.batch_size == 22  # all training images, which are fewer than the recipe's 32
    assert config.train.augment == 0.0  # typed, though it is the recipe's own
    assert (config.data.size, config.model.channels, config.train.length) == (8, 8, "2 steps")
    command.done(*words[:-6], *SHORT[2:], "--train.length", "3 steps", "--train.lr_period", "3 steps")
    assert Run.open("runs/photos").newest_step() == 3 and Run.open("runs/photos").config.train.batch_size == 22


def test_minutes_are_for_photos_and_photos_need_images(folder, command):
    refused(command("train", "digits", "--minutes", 5), "--minutes", "photos")
    with refusing("minutes", 0):
        for_minutes(load_recipe("photos"), 0)
    with refusing("data.source", ""):
        for_minutes(load_recipe("photos"), 1)
    assert not Path("runs").exists()


def test_it_begins_with_the_model_of_the_package_where_that_fits(folder, monkeypatch, logged):
    monkeypatch.setattr(photos, "SHIPPED", "digits")
    digits = load_recipe("digits")
    digits = replace(digits, data=replace(digits.data, size=8))
    assert for_minutes(digits, 1).train.init == "shipped:digits"
    assert len(logged) == 2 and "shipped:digits" in logged[1]
    assert for_minutes(digits, 1, by_class=True).train.init == ""
    assert for_minutes(replace(digits, model=replace(digits.model, channels=16)), 1).train.init == ""
    assert for_minutes(digits, 1, typed=["train.init"]).train.init == ""
