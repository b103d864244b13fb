"""Tiny runs to edit images with, made once for the tests of edits, and the tiles of the pictures that come of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import tiny_config
from unstir.pictures.grid import GAP, LINE, TILE
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer


@pytest.fixture(scope="module")
def once(digits, shared):
    """once(name, **changes) -> the folder of a tiny run, trained only once; nothing in it may be changed."""

    def train(name, **changes):
        def make(folder):
            config = tiny_config(digits, train__length="40 steps", train__lr=0.01, train__ema_decay=0.5, **changes)
            store = open_data(config, folder)
            Trainer(open_run(config, folder, store), store).run()

        return shared(f"edited-{name}", make)

    return train


@pytest.fixture
def run(once, tmp_path):
    """A run without classes."""
    return Path(shutil.copytree(once("run"), tmp_path / "run"))


@pytest.fixture
def classes(once, tmp_path):
    """A run that knows ten classes."""
    return Path(shutil.copytree(once("classes", model__num_classes=10), tmp_path / "classes"))


def tiles(path, rows=1):
    """The pixels of a picture's tiles, in rows, at the size of the images: [n, 8, 8]."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        sheet = np.asarray(picture).astype(int)
    classes = json.loads(Path(path).with_suffix(".json").read_text())["classes"]
    sheet = sheet[LINE * (2 if classes else 1) :]  # below the names of the classes and of the tiles
    assert sheet.shape[0] == GAP + rows * (TILE + GAP)
    columns = (sheet.shape[1] - GAP) // (TILE + GAP)
    step = TILE // 8
    at = lambda row, column: sheet[GAP + row * (TILE + GAP) :: step, GAP + column * (TILE + GAP) :: step][:8, :8]
    return np.stack([at(row, column) for row in range(rows) for column in range(columns)])
