"""What a pack that ends without a store leaves beside it: nothing where images are refused, all where it continues."""

import numpy as np
import pytest
from PIL import Image

from unstir import UserError, pack
from unstir.data import packing, source


def images(folder, odd):
    """Seven images in a folder, and an eighth, the last, that is of another shape, empty, or like the others."""
    folder.mkdir()
    for place in range(8):
        Image.new("RGB", (9 if odd == "shape" and place == 7 else 8, 8)).save(folder / f"{place}.png")
    if odd == "empty":
        (folder / "7.png").write_bytes(b"")
    return folder


def items(folder, odd):
    """The same as the items of a data set."""
    return [(np.asarray(Image.open(file)), "one") for file in sorted(images(folder, odd).iterdir())]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(source, "_CHUNK_ROWS", 2)
    monkeypatch.setattr("unstir.data.writer.FLUSH_SECONDS", 0)


@pytest.mark.parametrize(
    ("make", "odd", "strict", "said"),
    [
        (images, "shape", False, "images differ in size"),
        (items, "shape", False, "images differ in size"),
        (images, "empty", True, "1 file refused: 7.png"),
    ],
)
@pytest.mark.parametrize("killed", [False, True])
def test_a_refusal_of_the_images_leaves_nothing(tmp_path, make, odd, strict, said, killed):
    given = make(tmp_path / "in", odd)

    def kill(done, total):
        raise KeyboardInterrupt

    if killed:
        with pytest.raises(KeyboardInterrupt):
            pack(given, tmp_path / "store", held_out=0, progress=kill)
        assert (tmp_path / ".store.packing/journal.jsonl").exists()
    with pytest.raises(UserError, match=said):
        pack(given, tmp_path / "store", held_out=0, strict=strict)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "error", [UserError("a packing worker ended; run the same command again to continue"), OSError(28, "full")]
)
def test_what_the_same_command_continues_is_kept(tmp_path, monkeypatch, error):
    given, done = images(tmp_path / "in", ""), []

    class Writer(packing.Writer):
        def write(self, chunk):
            if self.state.position == 4:
                raise error
            super().write(chunk)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="run the same command again"):
        patch.setattr(packing, "Writer", Writer)
        pack(given, tmp_path / "store", held_out=0)
    pack(given, tmp_path / "store", held_out=0, progress=lambda now, total: done.append(now))
    assert done == [6, 8] and sorted(path.name for path in tmp_path.iterdir()) == ["in", "store"]
