"""Class names of every language on a contact sheet, and moving pictures and strips, looked at pixel by pixel."""

import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from refusals import mistake, refusing
from unstir.data import pack
from unstir.diffusion.samplers import Step
from unstir.pictures import animation
from unstir.pictures import contact as sheets
from unstir.pictures.animation import HEAD, STAGES, Frame, animation_kind, save_animation, strip
from unstir.pictures.charts import evenly
from unstir.pictures.contact import contact, describe, inspect
from unstir.pictures.grid import GAP, SIZE, TILE, WIDEST, caption, contact_sheet, font, grid, of_class

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


def chain(count, num=4, channels=1, side=8):
    """(steps, x_T, times) of ``count`` states, each x of another grey, -1 to 1, whose estimate is its negative."""
    greys = [torch.full((num, channels, side, side), -1 + 2 * i / max(count - 1, 1)) for i in range(count)]
    times = list(range(count - 1, -1, -1))
    steps = (Step(t, x, -before) for t, x, before in zip(times[1:], greys[1:], greys, strict=False))
    return steps, greys[0], times


def pixels(picture):
    return np.asarray(picture.convert("L")).astype(int)


def collect(*given, **limit):
    return list(animation.collect(*given, **limit))


def test_frames_are_evenly_chosen_with_both_ends():
    assert evenly(5, 60) == [0, 1, 2, 3, 4] and evenly(1, 2) == [0]
    for count, limit in ((61, 60), (1000, 60), (100, 2), (7, 3)):
        chosen = evenly(count, limit)
        gaps = np.diff(chosen)
        assert len(chosen) == limit and chosen[0] == 0 and chosen[-1] == count - 1
        assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("steps", [10, 20, 50, 100, 1000])
def test_the_stages_of_a_chain_of_a_round_number_of_steps_are_at_round_times(steps):
    frames = collect(*chain(steps + 1, num=1))
    assert [frames[i].t for i in evenly(len(frames), STAGES)] == [steps * k // 10 for k in range(10, -1, -1)]


def test_a_long_chain_is_thinned_while_it_is_collected():
    frames = collect(*chain(1000))
    assert len(frames) == 61 and frames[0].t == 999 and frames[-1].t == 0
    assert frames[0].x.dtype == torch.uint8 and frames[0].x.shape == (4, 1, 8, 8)
    assert len(collect(*chain(10), limit=4)) == 4 and len(collect(*chain(10))) == 10


def test_the_first_frame_is_the_noise_and_each_has_the_estimate_made_from_it():
    frames = collect(*chain(52))
    assert [frame.t for frame in frames] == list(range(51, -1, -1))
    assert [frame.x[0, 0, 0, 0].item() for frame in frames] == list(range(0, 256, 5))
    assert [frame.x0[0, 0, 0, 0].item() for frame in frames[:-1]] == list(range(255, 0, -5))
    assert torch.equal(frames[-1].x0, frames[-1].x)  # there is nothing more to expect of an image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["moving.webp", "moving.GIF"])
def test_an_animation_opens_again_frame_by_frame(tmp_path, name, channels):
    frames = collect(*chain(12, channels=channels))
    save_animation(frames, tmp_path / name, nrow=2)
    sheet = grid(frames[0].x, nrow=2)
    with Image.open(tmp_path / name) as moving:
        assert moving.n_frames == 12 and moving.info["loop"] == 0
        assert moving.size[1] == HEAD + sheet.height and moving.size[0] >= 2 * sheet.width
        durations, shown = [], []
        for picture in ImageSequence.Iterator(moving):
            shown.append(pixels(picture))
            durations.append(picture.info["duration"])
    assert durations == [1500, *[80] * 10, 1500]
    middle = HEAD + GAP + TILE // 2
    right = (moving.size[0] + 3 * GAP) // 2 + GAP + TILE // 2
    for frame, picture in zip(frames, shown, strict=True):
        assert abs(picture[middle, GAP + TILE // 2] - int(frame.x[0, 0, 0, 0])) <= 2  # a GIF has 256 colours in all
        assert abs(picture[middle, right] - int(frame.x0[0, 0, 0, 0])) <= 2
        assert (picture[:HEAD] < 128).any()  # the caption


def test_more_than_sixty_one_frames_are_thinned_and_one_is_enough(tmp_path):
    frames = collect(*chain(200), limit=200)
    save_animation(frames, tmp_path / "long.webp")
    save_animation(frames[-1:], tmp_path / "short.webp")
    for name, count in (("long", 61), ("short", 1)):
        with Image.open(tmp_path / f"{name}.webp") as moving:
            assert moving.n_frames == count


def test_other_formats_are_refused_and_temporary_names_are_not(tmp_path):
    assert animation_kind(tmp_path / "a.WebP") == "WEBP" and animation_kind(tmp_path / "a.gif") == "GIF"
    for name in ("a.mp4", "a.png", "a"):
        assert ".webp" in str(mistake(save_animation, collect(*chain(2)), tmp_path / name))
    save_animation(collect(*chain(2)), tmp_path / "a.partial", "GIF")
    with Image.open(tmp_path / "a.partial") as moving:
        assert moving.format == "GIF"
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_has_a_row_an_image_and_a_column_a_stage(channels):
    frames = collect(*chain(50, num=3, channels=channels))
    picture = strip(frames, stages=5)
    tile = TILE + GAP
    assert picture.mode == {1: "L", 3: "RGB"}[channels]
    assert picture.size == (GAP + 5 * tile, 2 * (2 * HEAD + GAP + 3 * tile))
    grey, stages = pixels(picture), [frames[i] for i in evenly(50, 5)]
    for block, name in enumerate(("x", "x0")):
        top = block * picture.height // 2
        for column, stage in enumerate(stages):
            for row in range(3):
                y, x = top + 2 * HEAD + GAP + row * tile + TILE // 2, GAP + column * tile + TILE // 2
                assert grey[y, x] == int(getattr(stage, name)[row, 0, 0, 0])
            head = grey[top + HEAD : top + 2 * HEAD, GAP + column * tile : GAP + (column + 1) * tile]
            assert (head < 128).any()  # its t
    few = strip([Frame(0, *[torch.zeros(1, 1, 8, 8, dtype=torch.uint8)] * 2)])
    assert few.height == 2 * (2 * HEAD + 2 * GAP + TILE) and few.width > 2 * TILE  # as wide as its words
