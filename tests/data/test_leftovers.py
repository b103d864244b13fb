"""A pack that ends without a store leaves nothing beside it."""

import re

import numpy as np
import pytest
from encoding import fill, flat
from PIL import Image

from unstir import UserError, pack
from unstir.data import packing, source


def images(folder, odd):
    """Seven images in a folder, and an eighth, the last, that is of another shape, empty, or like the others."""
    last = {"shape": flat(size=9), "empty": b""}.get(odd, flat(size=8))
    return fill(folder, {**{f"{place}.png": flat(size=8) for place in range(7)}, "7.png": last})


def items(folder, odd):
    """The same as the items of a data set."""
    return [(np.asarray(Image.open(file)), "one") for file in sorted(images(folder, odd).iterdir())]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(source, "_CHUNK_ROWS", 2)


@pytest.mark.parametrize(
    ("make", "odd", "strict", "place"),
    [(images, "shape", False, "'7.png'"), (items, "shape", False, "[7]"), (images, "empty", True, "7.png")],
)
def test_a_refusal_of_the_images_leaves_nothing(tmp_path, make, odd, strict, place):
    given = make(tmp_path / "in", odd)
    with pytest.raises(UserError, match=re.escape(place)):
        pack(given, tmp_path / "store", held_out=0, strict=strict)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("error", [UserError("a packing worker ended"), OSError(28, "full"), KeyboardInterrupt()])
def test_what_fails_or_is_interrupted_leaves_nothing(tmp_path, monkeypatch, error):
    class Writer(packing.Writer):
        def write(self, chunk):
            if self.done == 4:
                raise error
            super().write(chunk)

    monkeypatch.setattr(packing, "Writer", Writer)
    with pytest.raises(type(error)):
        pack(images(tmp_path / "in", ""), tmp_path / "store", held_out=0)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
