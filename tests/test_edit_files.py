"""What `unstir edit` reads and writes beside its picture: inputs that stay, masks, single results, numbered noises."""

import errno
import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from refusals import mistake
from unstir import edit
from unstir.chain import Chain
from unstir.edit.editing import Editing, psnr
from unstir.edit.files import Target, notes_on, read_image, read_mask
from unstir.errors import UnwrittenError
from unstir.generate.drawing import Job, sample_batches
from unstir.pixels import to_uint8
from unstir.runs import sidecar
from unstir.runs.card import Labels
from unstir.runs.config import Kind


@pytest.mark.parametrize(
    ("out", "read", "singles", "given"),
    [
        ("a.png", ["a.png"], False, "a.png"),
        ("./a.png", ["a.png"], False, "a.png"),
        ("b.png", ["a.png"], False, "b.png"),  # which has no sidecar
        ("mask.png", ["a.png", "mask.png"], False, "mask.png"),
        ("new.png", ["a.png"], True, "new-1.png"),
        ("made.png", ["made-1.png"], False, "made.png"),  # with which its single results would go
        ("other.png", ["a.png"], False, "other.png"),  # whose sidecar is not of unstir
    ],
)
def test_what_is_read_and_what_is_the_users_is_not_replaced(tmp_path, monkeypatch, out, read, singles, given):
    monkeypatch.chdir(tmp_path)
    pixels = Image.new("L", (8, 8))
    sidecar.save(Path("made.png"), sidecar.png(pixels), "unstir edit vary", {}, [pixels, pixels])
    for name in ("a", "b", "mask", "new-1"):
        pixels.save(f"{name}.png")
    Path("mask.json").write_text('{"command": "unstir edit vary"}')
    Path("other.json").write_text('{"precious": 1}')
    error = mistake(Target, Path(out), Path("edits"), ["a"], [Path(name) for name in read], singles)
    assert (error.key, error.given) == ("out", Path(given))
    Target(Path("made.png"), Path("edits"), ["a"], [Path("a.png")], singles=True)  # what unstir wrote is replaced


@pytest.mark.parametrize("singles", [False, True])
@pytest.mark.parametrize("into", ["made.png", "made.PNG", "made-0.png", "made-x.png", "other/made.png"])
def test_a_result_is_not_pasted_into_the_picture_or_its_single_results(tmp_path, monkeypatch, into, singles):
    monkeypatch.chdir(tmp_path)
    work = partial(Target, Path("made.png"), Path("edits"), ["a"], [Path("a.png")], singles, Path(into))
    if into in ("made.png", "made.PNG") or (singles and into == "made-0.png"):
        error = mistake(work)
        assert (error.key, error.given) == ("into", Path(into))
    else:
        work()


def test_single_results_are_the_tiles_at_the_size_of_the_images(unstir, run):
    assert unstir("edit", "vary", run.path, "a.png", "--num", 3, "--singles", "--out", "made.png")[0] == 0
    edited = edit.vary(run.model(), Path("a.png"), Job(chain=run.chain(), num=3), strength=0.6)
    for number, pixels in enumerate(edited.made):
        with Image.open(f"made-{number}.png") as single:
            assert np.array_equal(np.asarray(single), pixels[0].numpy())


def singles(stem="made"):
    return sorted(path.name for path in Path().glob(f"{stem}-*.png"))


def test_single_results_of_an_older_picture_go_with_it(unstir, run):
    ask = lambda num, *more: unstir(
        "edit", "vary", run.path, "a.png", "--steps", 3, "--num", num, "--out", "made.png", *more
    )
    assert ask(4, "--singles")[0] == 0 and len(singles()) == 4
    for _ in range(2):
        status, _, err = ask(2, "--singles")
        assert status == 0 and singles() == ["made-0.png", "made-1.png"], err
    kept = Path("made-1.png").read_bytes()
    assert ask(2)[0] == 0 and Path("made-1.png").read_bytes() == kept  # the same settings: they are still its results
    Path("made-2.png").write_bytes(b"precious")
    assert ask(1)[0] == 0 and singles() == ["made-2.png"]
    Path("made-2.png").unlink()
    assert ask(3, "--singles")[0] == 0 and len(singles()) == 3


def test_a_picture_of_its_own_in_the_place_of_a_single_result_stays(unstir, run):
    ask = lambda out, *more: unstir("edit", "vary", run.path, "a.png", "--steps", 3, "--out", out, *more)
    assert ask("made.png", "--num", 3, "--singles")[0] == 0
    Path("made-2.png").unlink()
    assert ask("made-2.png", "--num", 1)[0] == 0
    kept = Path("made-2.png").read_bytes()
    status, _, err = ask("made.png", "--num", 3, "--singles", "--seed", 1)
    assert status == 2 and "made-2.png" in err
    assert ask("made.png", "--num", 1)[0] == 0 and singles() == ["made-2.png"]
    assert Path("made-2.png").read_bytes() == kept and Path("made-2.json").exists()


def test_a_single_result_that_was_changed_stays(unstir, run, refused):
    ask = lambda num, *more: unstir(
        "edit", "vary", run.path, "a.png", "--steps", 3, "--num", num, "--out", "made.png", *more
    )
    assert ask(3, "--singles")[0] == 0
    Path("made-1.png").write_bytes(b"precious")
    refused(ask(3, "--singles"), "made-1.png")
    assert ask(1)[0] == 0 and singles() == ["made-1.png"] and Path("made-1.png").read_bytes() == b"precious"


@pytest.mark.parametrize("num", [3, 1])
def test_single_results_that_a_full_disk_cut_short_have_no_settings_and_are_made_again(unstir, run, monkeypatch, num):
    ask = ("edit", "vary", run.path, "a.png", "--steps", 3, "--singles", "--out", "made.png")
    assert unstir(*ask, "--num", 2, "--seed", 1)[0] == 0
    save_png = sidecar.save_png

    def full(path, picture, **words):
        if path.name == "made-1.png":
            raise UnwrittenError(errno.ENOSPC, "No space left on device", "made-1.png")
        save_png(path, picture, **words)

    monkeypatch.setattr(sidecar, "save_png", full)
    assert unstir(*ask, "--num", 3)[0] == 2 and not Path("made.json").exists()
    monkeypatch.setattr(sidecar, "save_png", save_png)
    assert unstir(*ask, "--num", num)[0] == 0
    assert singles() == [f"made-{number}.png" for number in range(num)]
    assert Path("made.json").exists() and not list(Path().glob(".made*"))


PHOTO = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
HOLE = np.zeros((8, 8), bool)
HOLE[2:5, 1:7] = True


SOFT = np.zeros((8, 8))  # the opacity of the hole with soft edges, half of which lie outside it
SOFT[1:6, 0:8], SOFT[2:5, 1:7], SOFT[3, 2:6] = 90, 170, 255
RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def layer(colour, opacity):
    """Pixels of one colour, or of the photo, and their opacity, of 255."""
    pixels = PHOTO if colour is None else np.full((8, 8, 3), colour, np.uint8)
    return np.dstack((pixels, np.round(opacity).astype(np.uint8)))


@pytest.mark.parametrize(
    "mask",
    [
        layer(None, 255 - 255 * HOLE),  # a photo in which the hole was erased
        layer(None, 255 - SOFT),
        *(
            layer(colour, opacity)  # painted on a layer of its own
            for colour in (RED, WHITE, BLACK, (200, 120, 40))
            for opacity in (255 * HOLE, SOFT, 0.4 * SOFT, 0.4 * 255 * HOLE)
        ),
        np.where(HOLE, 255, 0).astype(np.uint8),
        np.where(HOLE[..., None], 200, np.full((8, 8, 3), 40)).astype(np.uint8),
    ],
)
def test_a_mask_is_read_as_image_editors_make_it(tmp_path, mask):
    Image.fromarray(mask).save(file := tmp_path / "mask.png")
    assert torch.equal(read_mask(file, None, file, (3, 8, 8))[0, 0], torch.from_numpy(~HOLE))


@pytest.mark.parametrize("colour", [None, RED])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photo_is_no_mask(tmp_path, colour, mode):
    painted = PHOTO if colour is None else np.where(HOLE[..., None], colour, PHOTO).astype(np.uint8)
    Image.fromarray(painted).convert(mode).save(file := tmp_path / "mask.png")
    error = mistake(read_mask, file, None, file, (3, 8, 8))
    assert (error.key, error.given) == ("mask", file) and "paint white" in error.remedy


DIGIT = np.zeros((16, 16, 3), np.uint8)
DIGIT[3:13, 7:9], DIGIT[3:13, 9] = 255, 130


@pytest.mark.parametrize("ground", [np.full_like(DIGIT, 255), DIGIT])
def test_a_box_in_colour_is_no_mask(tmp_path, ground):
    Image.fromarray(ground).save(image := tmp_path / "image.png")
    for width, height in ((3, 1), (6, 4)):  # 1.2% and 9% of the pixels
        mask = ground.copy()
        mask[8 : 8 + height, 5 : 5 + width] = RED
        Image.fromarray(mask).save(file := tmp_path / "mask.png")
        error = mistake(read_mask, file, None, image, (3, 16, 16))
        assert error.key == "mask" and "paint white" in error.remedy


def test_a_few_pixels_in_colour_do_not_spoil_a_mask(tmp_path):
    mask = DIGIT.copy()
    mask[0, :2] = RED  # 0.8% of the pixels
    Image.fromarray(mask).save(file := tmp_path / "mask.png")
    keep = read_mask(file, None, file, (3, 16, 16))[0, 0]
    assert torch.equal(keep, torch.from_numpy(DIGIT[..., 0] < 128))


def test_how_much_is_filled_in_is_said(unstir, run, logged):
    edit.inpaint(run.model(), Path("a.png"), Job(chain=run.chain(), num=1), box=(0, 0, 8, 2), resamples=1)
    (line,) = logged
    assert "16 of 64" in line and "25%" in line


def test_what_is_done_to_an_image_is_said(unstir, run):
    Image.new("RGBA", (20, 10), (90, 90, 90, 128)).save("clear.png")
    status, _, err = unstir("edit", "vary", run.path, "clear.png", "--num", 1)
    assert status == 0 and err.count("clear.png: ") == 2 and "transparency" in err and "10x10 of 10x20" in err


def test_numbers_name_the_images_that_sampling_numbers(unstir, run):
    options = ("--steps", 5, "--spacing", "trailing", "--seed", 3)
    status, out, _ = unstir("edit", "blend", run.path, "--numbers", 4, 1, *options, "--count", 3, "--singles")
    assert status == 0 and "PSNR" not in out
    ((_, images),) = sample_batches(run.model(), Job(num=5, chain=Chain("ddim", steps=5, seed=3)))
    drawn = to_uint8(images)[:, 0].numpy().astype(int)
    single = lambda n: np.asarray(Image.open(next((run.path / "edits").glob(f"blend-4-1-*-{n}.png")))).astype(int)
    assert abs(single(0) - drawn[4]).max() <= 1 and abs(single(2) - drawn[1]).max() <= 1
    assert abs(single(1) - drawn[4]).max() > 1
    settings = json.loads(next((run.path / "edits").glob("blend-4-1-*.json")).read_text())
    assert settings["numbers"] == [4, 1] and "refinements" not in settings and settings["calls"] == 5


def test_both_ends_of_a_blend_come_back_with_their_psnr(unstir, run):
    ask = ("edit", "blend", run.path, "a.png", "b.png", "--refinements", 0, "--count", 2, "--out", "poor.png")
    out = unstir.done(*ask)
    first, second = (float(word) for word in out.split("PSNR")[1].split()[:3:2])
    assert json.loads(Path("poor.json").read_text())["psnr"] == pytest.approx([first, second], abs=0.05)


def test_settings_vouch_for_their_own_pictures_alone(unstir, run, refused):
    ask = ("edit", "vary", run.path, "a.png", "--num", 2, "--singles", "--out", "made.png")
    Path("made-2024-05.png").write_bytes(b"precious")
    assert unstir(*ask)[0] == unstir(*ask)[0] == 0 and Path("made-2024-05.png").read_bytes() == b"precious"
    Path("cat.png").write_bytes(b"precious")
    assert unstir("sample", run.path, "--num", 2, "--animate", "cat.webp", "--out", "images")[0] == 0
    refused(unstir("sample", run.path, "--num", 2, "--strip", "cat.png", "--out", "images"), "cat.png")
    assert Path("cat.png").read_bytes() == b"precious"
    assert json.loads(Path("cat.webp.json").read_text())["num"] == 2 and not Path("cat.json").exists()


def test_a_picture_left_without_settings_is_made_again(unstir, run, monkeypatch):
    ask = ("edit", "vary", run.path, "a.png", "--num", 2, "--steps", 3, "--out", "made.png")
    write_text = sidecar.write_text

    def full(path, text):
        if path.suffix == ".json":
            raise UnwrittenError(errno.ENOSPC, "No space left on device", str(path))
        write_text(path, text)

    monkeypatch.setattr(sidecar, "write_text", full)
    assert unstir(*ask)[0] == 2 and Path("made.png").exists() and not Path("made.json").exists()
    monkeypatch.setattr(sidecar, "write_text", write_text)
    made = Path("made.png").read_bytes()
    assert unstir(*ask)[0] == 0
    assert Path("made.png").read_bytes() == made and Path("made.json").exists()
    assert not list(Path().glob(".made*"))
    Path("made.json").unlink()  # and now it could be anybody's
    assert unstir(*ask)[0] == 2


def test_a_pipe_is_no_picture_and_is_not_waited_for(unstir, run, refused):
    os.mkfifo("pipe.png")
    for words in (("edit", "vary", run.path, "pipe.png"), ("edit", "inpaint", run.path, "a.png", "--mask", "pipe.png")):
        refused(unstir(*words), "pipe.png: ", "no regular file")


def test_an_edit_has_from_one_to_ten_thousand_results_in_batches_of_at_least_one():
    checks = {"check": lambda chain: None, "check_condition": lambda given: None}
    model = SimpleNamespace(
        kind=Kind(), folder="run", labels=Labels(), guide=None, conditions=None, hides=False, **checks
    )
    for num, batch_size in ((1, 1), (10_000, 1)):
        assert Editing(model, Job(num=num, chain=Chain(), batch_size=batch_size), Chain()).calls == 0
    for num, batch_size, remedy in ((0, 1, {"num": 1}), (10_001, 1, {"num": 10_000}), (1, 0, {"batch_size": 1})):
        error = mistake(Editing, model, Job(num=num, chain=Chain(), batch_size=batch_size), Chain())
        assert error.remedy == remedy and error.key in remedy


def test_psnr_is_in_decibels_of_the_whole_range():
    zeros = torch.zeros(1, 1, 2, 2)
    assert psnr(zeros, zeros + 2) == pytest.approx(0) and psnr(zeros, zeros + 0.2) == pytest.approx(20)
    assert psnr(zeros, zeros) == float("inf")
    assert psnr(zeros - 1, zeros + 1) == pytest.approx(0) and psnr(zeros + 1, zeros + 1) == float("inf")


def test_what_is_white_in_a_mask_is_its_brighter_half(tmp_path):
    Image.fromarray(np.array([[0, 63], [192, 255]], np.uint8)).save(tmp_path / "mask.png")
    keep = read_mask(tmp_path / "mask.png", None, tmp_path / "mask.png", (3, 2, 2))
    assert keep.tolist() == [[[[True, True], [False, False]]]]


@pytest.mark.parametrize(
    ("size", "notes"),
    [
        ((4, 4), []),
        ((3, 3), ["enlarged from 3x3 pixels"]),
        ((6, 4), ["its centre is used, 4x4 of 4x6 pixels"]),
        ((3, 9), ["enlarged from 9x3 pixels", "its centre is used, 3x3 of 9x3 pixels"]),
    ],
)
def test_what_is_done_to_an_image_of_another_size_is_said(tmp_path, size, notes):
    Image.new("L", size).save(tmp_path / "a.png")
    assert notes_on(tmp_path / "a.png", (1, 4, 4)) == notes


def test_an_oblong_picture_is_cropped_and_resized_as_a_square_one(tmp_path):
    Image.fromarray(np.repeat(np.arange(12, dtype=np.uint8)[None] * 20, 6, 0)).save(tmp_path / "a.png")
    (note,) = notes_on(tmp_path / "a.png", (1, 6, 8))
    assert "6x8 of 6x12" in note
    assert torch.equal(
        read_image(tmp_path / "a.png", (1, 6, 8))[0, 0, 0].add(1).mul(127.5).round(), torch.arange(2, 10) * 20.0
    )


@pytest.mark.parametrize(("size", "corner"), [((24, 16), (4, 0)), ((8, 8), (0, 0)), ((16, 40), (0, 12))])
def test_a_result_is_pasted_into_the_photo_at_its_size_and_nothing_else_changes(unstir, run, size, corner):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)).save("photo.png")
    ask = ("edit", "inpaint", run.path, "photo.png", "--box", 2, 4, 6, 4, "--num", 2, "--singles", "--out", "made.png")
    status, out, err = unstir(*ask, "--into", "filled.png")
    assert status == 0 and "filled.png" in out and "calls    25 " in out, err
    side = min(size)
    scale, (left, top) = side // 8, corner
    hole = (left + 2 * scale, top + 4 * scale, left + side, top + side)
    with Image.open("photo.png") as before, Image.open("filled.png") as after, Image.open("made-0.png") as result:
        part = result.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        assert after.size == before.size and after.mode == "RGB"
        before.paste(part.crop((2 * scale, 4 * scale, side, side)), hole[:2])
        assert before.tobytes() == after.tobytes()
    assert json.loads(Path("filled.json").read_text())["command"] == "unstir edit inpaint"
    assert unstir(*ask, "--into", "photo.png")[0] == 2  # the image itself
    assert unstir(*ask, "--into", "filled.png")[0] == 0
