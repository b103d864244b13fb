"""A run of seconds by the command line, in a folder of its own."""

import shutil

import numpy as np
import pytest
from PIL import Image


def tiny(length="6 steps", log="2 steps", checkpoint="1 epoch"):
    """Options that make a run of seconds."""
    words = (
        "--model.channels 8 --model.groups 4 --train.batch_size 8 --train.dtype float32 --diffusion.T 20 "
        "--grids.num 4 --grids.steps 3 --grids.log_spaced 1 --log.held_out_images 4"
    )
    spans = "--train.length", length, "--train.warmup", "0 steps", "--log.every", log, "--checkpoint.every", checkpoint
    return [*words.split(), *spans]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture
def unstir(tmp_path, monkeypatch, command):
    """unstir("train", ...) -> (status, standard output, standard error), run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command


@pytest.fixture
def here(unstir, digits, shared, tmp_path):
    """The folder "here" of a tiny run, trained by the command line once and copied."""

    def make(folder):
        assert unstir("train", "digits", *tiny(), "--data.store", digits, "--out", folder)[0] == 0

    return shutil.copytree(shared("run-of-the-command", make), tmp_path / "here")
