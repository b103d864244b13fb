"""Classes of folders by one option: their number, hidden labels, and images of one class."""

from pathlib import Path

import pytest
from PIL import Image

from unstir import Run

SMALL = (
    "--data.size", 8, "--model.channels", 8, "--model.groups", 4, "--model.mults", 1, "--model.attention", 0,
    "--diffusion.T", 20, "--train.length", "2 steps", "--train.lr_schedule", "constant", "--train.warmup", "0 steps",
    "--train.batch_size", 4, "--grids.num", 2, "--grids.steps", 2, "--log.held_out_images", 0,
)  # fmt: skip


@pytest.fixture
def photos(unstir):
    """photos/cats and photos/dogs, of eight images each, in the current folder."""
    for number in range(16):
        file = Path("photos", ("cats", "dogs")[number % 2], f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 15 * number).save(file)


def test_subfolders_become_the_classes_of_a_run_that_can_be_guided(photos, unstir):
    words = "train", "digits", "--data.source", "photos", "--by-class", *SMALL, "--out", "run"
    for _ in range(2):  # the same command goes on
        unstir.done(*words)
    run = Run.open("run")
    assert (run.config.model.num_classes, run.config.train.condition_dropout) == (2, 0.1)
    assert run.data.classes == ("cats", "dogs")
    drawn = "sample", "run", "--label", "cats", "--guidance", 2, "--num", 2, "--steps", 2, "--out", "made"
    unstir.done(*drawn)


def test_a_run_without_classes_and_another_number_are_refused(photos, unstir, refused):
    words = "train", "digits", "--data.source", "photos", *SMALL, "--out", "run"
    refused(unstir(*words, "--by-class", "--model.num_classes", 3), "--model.num_classes 3", "not the 2")
    assert unstir(*words)[0] == 0
    refused(unstir(*words, "--by-class"), "--by-class is for", "another --out")


def test_data_without_classes_is_refused_before_the_folder_is_made(photos, unstir, refused):
    words = "train", "digits", "--data.source", "photos/cats", "--by-class", *SMALL, "--out", "run"
    refused(unstir(*words), "--by-class needs classes", "a folder with its name")
    assert not Path("run").exists()
