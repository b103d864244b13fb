"""Classes on the command line: by name and number, from subfolders, beside pictures and on them."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from unstir.edit import editing
from unstir.pictures.grid import LINE, titled
from unstir.runs import card
from unstir.runs.run import Run

NAMES = ("sea", "forest", "town", "desert", "night sky", "f\u00f6hn", "snow", "7th", "cat", "dog")


@pytest.fixture(scope="module")
def named_run(tmp_path_factory, digits):
    """The folder of a run that knows ten classes with names."""
    from conftest import tiny_config
    from unstir.train.launch import open_data, open_run
    from unstir.train.trainer import Trainer

    folder = tmp_path_factory.mktemp("named") / "run"
    config = tiny_config(digits, model__num_classes=10, train__condition_dropout=0.5, train__length="2 steps")
    store = open_data(config, folder)
    card.save(folder, dataclasses.replace(open_run(config, folder, store).data, classes=NAMES))
    run = Run.open(folder)
    with run.lock():
        Trainer(run, store).run()
    return folder


@pytest.fixture
def saved(unstir, tmp_path):
    """saved(file, *words) -> the settings in this file after the command."""

    def run(file, *words):
        unstir.done(*words)
        return json.loads((tmp_path / file).read_text())

    return run


@pytest.mark.parametrize(("text", "other"), [("forest", "1"), ("1", "forest")])
def test_a_class_by_its_name_is_the_class_by_its_number(saved, named_run, tmp_path, text, other):
    options = ("--num", 3, "--steps", 2, "--strip", "way.png", "--out", "made")
    settings = saved("made/settings.json", "sample", named_run, "--label", text, *options)
    assert settings["label"] == 1 and settings["class"] == "forest"
    assert json.loads((tmp_path / "way.json").read_text())["class"] == "forest"
    assert saved("made/settings.json", "sample", named_run, "--label", other, *options) == settings  # the same job
    edit = ("edit", "vary", named_run, "a.png", "--num", 1, "--steps", 2, "--out", "v.png")
    settings = saved("v.json", *edit, "--label", text)
    assert settings["label"] == 1 and settings["classes"] == ["forest"]


def test_both_ends_by_name(saved, named_run):
    few = ("--count", 2, "--steps", 2, "--out")
    settings = saved("m.json", "edit", "morph", named_run, "--labels", "cat", "night sky", "--num", 1, *few, "m.png")
    assert settings["labels"] == [8, 4] and settings["classes"] == ["cat", "night sky"]
    settings = saved("bl.json", "edit", "blend", named_run, "--numbers", 0, 1, "--labels", "dog", 0, *few, "bl.png")
    assert settings["labels"] == [9, 0] and settings["classes"] == ["dog", "sea"]


@pytest.mark.parametrize("typed", ["sample", "evaluate", "edit vary", "edit invert", "edit inpaint"])
def test_a_misspelt_class_is_refused_with_the_near_one(unstir, refused, named_run, typed):
    words = [*typed.split(), named_run, *(["a.png"] if "edit" in typed else [])]
    words += ["--box", 0, 0, 2, 2] if "inpaint" in typed else []
    refused(unstir(*words, "--label", "forrest"), "--label forrest", "did you mean forest?")
    refused(unstir(*words, "--label", "10"), "--label 10 is outside", "0..9")


def test_a_network_without_classes_says_so(unstir, refused, trained):
    run, _ = trained(train__length="1 step")
    refused(unstir("sample", run.path, "--label", "forest"), "--label forest", "no classes")
    assert "leave out" not in refused(unstir("edit", "morph", run.path, "--labels", "3", "8"), "no classes")


def test_a_comparison_knows_its_class(saved, named_run):
    words = ("sample", named_run, "--num", 2, "--label", "cat", "--compare", "ddim:2", "--out", "compared")
    assert saved("compared/compare.json", *words)["class"] == "cat"


def test_the_title_of_an_edit_has_the_numbers_of_names_that_the_font_lacks(monkeypatch):
    tiles, titles = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), []
    monkeypatch.setattr(editing, "titled", lambda picture, title: titles.append(title) or picture)
    for settings in (
        {"labels": (8, 4), "label": None, "classes": ["Wald", "日本"]},
        {"label": 3, "classes": ["日本"]},
        {"labels": None, "label": None, "classes": []},
    ):
        editing.Edited(tiles[:1], tiles[1:], settings=settings).picture()
    assert titles == ["Wald to 4: 日本", "3: 日本", ""]


def test_a_title_is_drawn_above_and_cut_to_the_width():
    blank, long = Image.new("L", (60, 50), 255), "a name that is much too long"
    above = titled(blank, long).crop((0, 0, 60, LINE))
    assert min(above.tobytes()) < 128 and titled(blank, "x").height == 50 + LINE
    assert titled(blank, "").size == blank.size


def test_names_do_not_change_the_pixels_of_an_image(named_run, unstir, tmp_path):
    for name, label in (("a", "snow"), ("b", "6")):
        assert unstir("sample", named_run, "--num", 1, "--steps", 2, "--label", label, "--out", name)[0] == 0
    assert (tmp_path / "a/000000.png").read_bytes() == (tmp_path / "b/000000.png").read_bytes()


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
    unstir.done("train", "digits-guided", *words[2:-1], "of-ten")  # a recipe that has classes of its own
    assert Run.open("of-ten").config.model.num_classes == 2
    drawn = "sample", "run", "--label", "cats", "--guidance", 2, "--num", 2, "--steps", 2, "--out", "made"
    unstir.done(*drawn)


def test_a_run_without_classes_and_another_number_are_refused(photos, unstir, refused):
    words = "train", "digits", "--data.source", "photos", *SMALL, "--out", "run"
    refused(unstir(*words, "--by-class", "--model.num_classes", 3), "--by-class sets model.num_classes")
    refused(unstir("train", "digits-fill", *words[2:], "--by-class"), "--by-class does not go with data.condition")
    plain = "train", "digits-guided", "--data.source", "photos/cats", *words[4:]
    remedy = refused(unstir(*plain), "not the 0 classes", "--grids.guidance 1").split("use ")[1].split()
    unstir.done(*plain[:-1], "remedied", *remedy)
    assert unstir(*words)[0] == 0
    refused(unstir(*words, "--by-class"), "--by-class is for", "another --out")
