"""Data by the command line: another store for other settings, damage found, and what packing left out spoken of."""

import numpy as np
import pytest
from PIL import Image

import tiny_command
from refusals import refused
from tiny_command import tiny
from unstir.data.images import COLOUR_LOST, LEFT_OUT, UNLABELLED
from unstir.runs.run import Run

unstir = tiny_command.unstir
SMALL = "small part of the range"
GREY = "packed as RGB; with 1 channel"


def test_other_data_settings_have_another_store(unstir, tmp_path):
    assert unstir("train", "digits", *tiny(), "--out", "a")[0] == 0
    assert unstir("train", "digits", *tiny(), "--data.held_out", "0.3", "--out", "b")[0] == 0
    stores = {Run.open(name).config.data.store for name in ("a", "b")}
    assert len(stores) == 2 and str(tmp_path / "data/digits") in stores
    other = "--data.source", "data/digits", "--data.size", 16
    refused(unstir("train", "digits", *tiny(), *other, "--out", "c"), "8x8", "data.size")
    again = unstir("train", "digits", *tiny(), "--data.held_out", "0.3", "--out", "b")
    assert again[0] == 0  # named again with its recipe, a run still finds its own store


def test_a_source_that_is_a_link_to_itself_is_one_line(unstir, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    refused(unstir("train", "digits", *tiny(), "--data.source", "loop", "--out", "a"), "loop", "links")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("key", "value", "of"), [("lr_period", "3 steps", "train.lr"), ("compile", "yes", "train.compile")]
)
def test_nothing_is_packed_before_settings_are_refused(unstir, tmp_path, monkeypatch, key, value, of):
    monkeypatch.setenv("CXX", "nowhere/g++")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/1.png")
    settings = "train", "digits", *tiny(), f"--train.{key}", value
    refused(unstir(*settings, "--data.source", "photos", "--out", "a"), of)
    assert not (tmp_path / "data").exists()


def test_a_damaged_store_is_found_before_training_and_not_shown_as_whole(unstir, tmp_path):
    assert unstir("train", "digits", *tiny(), "--out", "a")[0] == 0
    file = tmp_path / "data/digits/train.images.npy"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    refused(unstir("train", "digits", *tiny(), "--out", "b"), "data/digits", "damaged")
    refused(unstir("data", "inspect", "data/digits"), "data/digits", "damaged")


def test_refused_files_and_colours_that_are_lost_are_spoken_of_when_training_packs(unstir, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), (20 * i, 10, 200), np.uint8)).save(tmp_path / f"photos/{i}.png")
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    status, out, err = unstir("train", "digits", *tiny(), "--data.source", "photos", "--out", "here")
    assert status == 0 and f"{COLOUR_LOST}: 12 (" in err
    assert "1 file refused" in err and "data inspect" in err and "11 training" in err and "photos-" in out


def test_images_left_out_and_labels_lost_are_spoken_of(unstir, tmp_path):
    picture = Image.fromarray(np.zeros((8, 8), np.uint8))
    for name in (*(f"split/{part}/{i}" for part in ("train", "test") for i in range(12)), "split/more/1", "split/2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "split/train/again").symlink_to(tmp_path / "split")
    status, _, err = unstir("train", "digits", *tiny(), "--data.source", "split", "--out", "here")
    assert status == 0 and err.count(LEFT_OUT) == 2
    for name in (*map(str, range(12)), "few/1", "few/2"):
        (tmp_path / "flat" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / f"flat/{name}.png")
    status, _, err = unstir("train", "digits", *tiny(), "--data.source", "flat", "--out", "there")
    assert status == 0 and UNLABELLED in err


def grey_images(folder, values):
    """Twenty grey PNG files of 16x16 of these values, uint8 or uint16 [20, 16, 16]."""
    folder.mkdir()
    for i, image in enumerate(values):
        Image.fromarray(image).save(folder / f"{i}.png")


def test_images_that_use_little_of_the_range_are_spoken_of(unstir, tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (20, 16, 16)).astype(np.uint16)
    grey_images(tmp_path / "of12", values)
    status, out, _ = unstir("data", "pack", "of12", "--out", "dark", "--channels", "1")
    (line,) = [line for line in out.splitlines() if SMALL in line]
    assert status == 0 and "in 0..16 of 0..255" in line and "times 16" in line
    size = ("--data.size", 16)
    for out, count in (("first", 1), ("second", 0)):  # it is said once, when it is packed
        status, _, err = unstir("train", "digits", *tiny(), "--data.source", "of12", *size, "--out", out)
        assert status == 0 and err.count(SMALL) == count
    grey_images(tmp_path / "of8", (values // 256).astype(np.uint8))
    assert SMALL in unstir("data", "pack", "of8", "--out", "as-dark")[1]
    values[1:] //= 256  # one image in full range is enough: a few dark ones are no mistake
    values[0] *= 16
    grey_images(tmp_path / "some", values)
    assert SMALL not in unstir("data", "pack", "some", "--out", "faint", "--channels", "1", "--held-out", "0")[1]
    grey_images(tmp_path / "full", np.random.default_rng(0).integers(0, 65536, (20, 16, 16)).astype(np.uint16))
    assert SMALL not in unstir("data", "pack", "full", "--out", "full-store", "--channels", "1")[1]


def test_grey_images_packed_as_rgb_are_spoken_of_at_8_and_16_bits(unstir, tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (20, 16, 16)).astype(np.uint16)
    grey_images(tmp_path / "of16", values)
    grey_images(tmp_path / "of8", (values // 256).astype(np.uint8))
    for name in ("of8", "of16"):
        assert GREY in unstir("data", "pack", name, "--out", f"{name}-rgb")[1]
        assert GREY not in unstir("data", "pack", name, "--out", f"{name}-grey", "--channels", "1")[1]
    coloured = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
    grey_images(tmp_path / "rgb", coloured)
    assert GREY not in unstir("data", "pack", "rgb", "--out", "coloured")[1]
