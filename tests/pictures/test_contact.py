"""Class names of every language on a contact sheet, and in the words of `unstir data inspect`."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from refusals import refusing
from unstir.data import pack
from unstir.pictures import contact as sheets
from unstir.pictures.contact import contact, describe, inspect
from unstir.pictures.grid import SIZE, WIDEST, caption, contact_sheet, font, of_class

TILES = torch.full((2, 1, 8, 8), 128, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("Gänse Ж é", "Gänse Ж é"), ("Ga\u0308nse", "Gänse"), ("日本", r"\u65e5\u672c"),
        ("\x1b[2Jwipe", r"\x1b[2Jwipe"), (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)  # fmt: skip
def test_every_character_of_a_caption_can_be_seen(name, drawn):
    assert caption(name, 14, 1000) == drawn


def test_long_names_are_cut_in_the_middle_and_told_apart_by_either_end():
    names = [f"{a} a name that goes on and on and on {b}" for a in "xy" for b in "12"]
    cut = [caption(name, 14, WIDEST) for name in names]
    assert len(set(cut)) == 4 and all("…" in text and font(14).getlength(text) <= WIDEST for text in cut)
    assert cut[0].startswith("x a name") and cut[1].endswith(" 2")
    assert caption("short", 14, WIDEST) == "short"


def test_classes_whose_names_the_font_lacks_are_told_apart_by_their_numbers_however_much_is_cut():
    names = ["日本語一", "日本語二", "Wald", "Ga\u0308nse", "\x1b"]
    shown = [of_class(number, name) for number, name in enumerate(names)]
    assert shown == ["0: 日本語一", "1: 日本語二", *names[2:]]
    assert [caption(name, SIZE, 46)[:2] for name in shown[:2]] == ["0:", "1:"]


def ink(name):
    """The captions' part of a sheet."""
    sheet = np.asarray(contact_sheet([(name, TILES)]))
    return sheet[:, : sheet.shape[1] - 2 * 50]


def test_names_beyond_ascii_are_drawn_as_different_letters_and_no_boxes():
    drawn = [ink(name) for name in ("Ж", "ü", "é", "日", "本")]
    for i, one in enumerate(drawn):
        assert (one < 100).sum() > 10
        assert not any(one.shape == other.shape and np.array_equal(one, other) for other in drawn[:i])


def test_caption_leaves_the_images_their_place_however_long_the_name():
    sheet = contact_sheet([("x" * 500, TILES), ("y", TILES)])
    assert sheet.width <= WIDEST + 2 * 50 + 20
    assert (np.asarray(sheet)[:48, -50:-2] == 128).sum() > 2000  # the last tile is whole


def test_classes_are_listed_by_number_and_name_in_one_line_each(tmp_path):
    for name in ("forest", "日本", "\x1b[2J"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "in" / name / f"{i}.png")
    store = pack(tmp_path / "in", tmp_path / "st\x1bore")
    lines = describe(store).splitlines()
    assert "\x1b" not in "".join(lines) and "8x8 RGB, 3 classes" in lines[0]
    assert [line.split()[:4] for line in lines[3:6]] == [
        ["0", r"\x1b[2J", "2", "1"],
        ["1", "forest", "2", "1"],
        ["2", "日本", "2", "1"],
    ]
    assert contact(store).height > 3 * 48


def test_a_sheet_shows_a_random_choice_and_says_of_how_many(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(sheets, "titled", lambda picture, title: titles.append(title) or picture)
    images = np.arange(397, dtype=np.uint16).repeat(64).reshape(397, 8, 8) // 2
    unlabelled = pack(images.astype(np.uint8), tmp_path / "store", channels=1, held_out=0)
    labelled = pack((images.astype(np.uint8), np.arange(397) // 200), tmp_path / "classes", channels=1, held_out=0)
    for store, count in ((unlabelled, 96), (labelled, 24)):
        tiles = np.asarray(contact(store))[25::50, -575::50]  # the middle of each tile
        assert titles.pop().startswith(f"{count} of 397 ")
        assert len(set(tiles.flat)) > count // 2 and 60 < tiles.mean() < 140  # the first would be 0..48
        assert np.array_equal(np.asarray(contact(store))[25::50, -575::50], tiles) and titles.pop()


def test_store_without_training_images_has_a_sheet(tmp_path):
    (tmp_path / "in/train").mkdir(parents=True)
    (tmp_path / "in/test").mkdir()
    (tmp_path / "in/train/1.png").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "in/test/1.png")
    store = pack(tmp_path / "in", tmp_path / "store")
    assert store.count("train") == 0 and contact(store).width > 0


def test_a_sheet_takes_the_place_of_no_other_picture(tmp_path):
    store = pack("digits", tmp_path / "digits")
    _, sheet = inspect(store.path)
    assert inspect(store.path)[1] == sheet == inspect(store.path, sheet)[1]  # its own may be replaced
    Image.new("L", (8, 8), 77).save(mine := tmp_path / "mine.png")
    kept = mine.read_bytes()
    with refusing("sheet", mine):
        inspect(store.path, mine)
    assert mine.read_bytes() == kept
