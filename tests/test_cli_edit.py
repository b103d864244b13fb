"""`unstir edit` as a person uses it, on tiny runs: what each command makes of its images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edited
from edited import tiles
from refusals import refused
from tiny_command import pixels
from unstir.diffusion.denoiser import Denoiser
from unstir.edit import editing
from unstir.pictures import grid as grids
from unstir.pictures.grid import caption, named_grid
from unstir.runs.run import Run

once, run, classes = edited.once, edited.run, edited.classes


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("inpaint a.png --box 0 0 4 4 --num 11", ["given", "to fill in", *(f"result {i}" for i in range(10)), "10"]),
        ("vary a.png --num 2", ["given", "result 0", "result 1"]),
        ("invert a.png", ["given", "noise", "back"]),
        ("blend a.png b.png --count 3", ["first", "second", "0%", "50%", "100%"]),
        ("blend --numbers 0 5 --count 3", ["0%", "50%", "100%"]),
        ("morph --labels 3 8 --count 3 --num 2", ["0%", "50%", "100%"] * 2),
    ],
)
def test_each_tile_of_a_picture_has_its_name_above_it(unstir, run, classes, monkeypatch, typed, names):
    name, *options = typed.split()
    drawn, kept = [], []
    monkeypatch.setattr(editing, "named_grid", lambda *given: drawn.append(given) or named_grid(*given))
    monkeypatch.setattr(grids, "caption", lambda *given: kept.append(caption(*given)) or kept[-1])
    assert unstir("edit", name, classes if name == "morph" else run, *options, "--out", "out.png")[0] == 0
    ((tiles, _, shown),) = drawn
    assert list(shown) == names and len(tiles) == len(names)
    assert set(names) <= set(kept)  # else a name is too long for its tile


def test_inpaint_keeps_what_it_should(unstir, run):
    status, out, _ = unstir("edit", "inpaint", run, "a.png", "--box", 1, 2, 3, 4, "--num", 3, "--out", "in.png")
    assert status == 0 and out.split()[:4] == ["picture", "in.png", "calls", "25"]
    image, masked, *made = tiles("in.png")
    assert (image == pixels("a.png")).all()
    hole = np.zeros((8, 8), bool)
    hole[2:6, 1:4] = True
    assert (masked == np.where(hole, 128, image)).all()
    assert len(made) == 3 and len({result.tobytes() for result in made}) == 3
    for result in made:
        assert (result[~hole] == image[~hole]).all() and (result[hole] != image[hole]).any()


def test_a_mask_is_the_box_that_it_paints(unstir, run):
    Image.fromarray(np.pad(np.full((4, 3), 255, np.uint8), ((2, 2), (1, 4)))).save("mask.png")
    same = ("--num", 2, "--steps", 5, "--resamples", 2, "--jump", 2)
    assert unstir("edit", "inpaint", run, "a.png", "--box", 1, 2, 3, 4, *same, "--out", "box.png")[0] == 0
    assert unstir("edit", "inpaint", run, "a.png", "--mask", "mask.png", *same, "--out", "mask-in.png")[0] == 0
    assert (tiles("box.png") == tiles("mask-in.png")).all()
    with Image.open("mask.png") as mask, Image.open("a.png") as image:  # both as large as a photograph
        mask.resize((80, 80), 0).save("large-mask.png")
        image.resize((80, 80), 0).save("large.png")
    assert unstir("edit", "inpaint", run, "large.png", "--mask", "large-mask.png", *same, "--out", "l.png")[0] == 0
    assert (tiles("l.png")[1] == 128).sum() == 12
    assert unstir("edit", "inpaint", run, "a.png", "--box", 1, 2, 3, 4, *same, "--seed", 1, "--out", "o.png")[0] == 0
    assert (tiles("o.png")[2:] != tiles("box.png")[2:]).any()


def test_filling_in_takes_the_variance_asked_for(unstir, run):
    made = []
    for variance in ("small", "large"):
        options = ("--box", 0, 0, 6, 6, "--num", 2, "--steps", 10, "--resamples", 2, "--variance", variance)
        assert unstir("edit", "inpaint", run, "a.png", *options, "--out", f"{variance}.png")[0] == 0
        made.append(tiles(f"{variance}.png"))
    assert (made[0] != made[1]).any()


def test_vary_goes_further_with_strength(unstir, run):
    gaps = []
    for strength in (0.05, 0.5, 1):
        status, out, _ = unstir("edit", "vary", run, "a.png", "--strength", strength, "--num", 4)
        assert status == 0 and out.startswith(f"picture  {run}/edits/vary-a-seed0-")
        image, *made = tiles(out.splitlines()[0].removeprefix("picture  "))
        assert (image == pixels("a.png")).all() and len(made) == 4
        gaps.append(abs(np.stack(made) - image).mean())
    assert gaps == sorted(gaps) and len(list((run / "edits").glob("*.png"))) == 3
    for options in (("--sampler", "dpmpp_2m"), ("--sampler", "ddim", "--eta", 0.5, "--steps", 4), ("--no-clip",)):
        assert unstir("edit", "vary", run, "a.png", *options, "--out", "out.png")[0] == 0
    assert len(tiles("out.png", rows=1)) == 9


def test_at_full_strength_vary_samples(unstir, run):
    assert unstir("edit", "vary", run, "a.png", "--strength", 1, "--num", 3, "--out", "vary.png")[0] == 0
    assert unstir("sample", run, "--num", 3, "--out", "made")[0] == 0
    abar = Run.open(run).model().denoiser.process.schedule.abar(20)
    made = np.stack([pixels(f"made/{i:06d}.png") for i in range(3)])
    assert abar < 0.05 and np.median(abs(tiles("vary.png")[1:] - made)) < 25


def test_invert_says_how_well_it_came_back(unstir, run):
    quality = []
    for refinements in (0, 4):
        options = ("--steps", 20, "--no-clip", "--refinements", refinements, "--out", "in.png")
        status, out, _ = unstir("edit", "invert", run, "a.png", *options)
        picture, calls, came_back = out.splitlines()
        assert status == 0 and picture.split() == ["picture", "in.png"]
        assert int(calls.split()[1]) % (refinements + 2) == 0
        assert came_back.startswith("PSNR     ") and came_back.endswith(" dB")
        quality.append(float(out.split()[-2]))
        image, _, back = tiles("in.png")
        assert (image == pixels("a.png")).all()
        rounded = ((image - back) ** 2).mean()
        assert quality[-1] == pytest.approx(10 * np.log10(255**2 / rounded), abs=1.5) if rounded else quality[-1] > 48
    assert quality[1] > quality[0] > 15 and quality[1] > 35


def test_blend_goes_from_one_image_to_the_other(unstir, run):
    options = ("--steps", 20, "--no-clip", "--refinements", 4, "--count", 5)
    assert unstir("edit", "blend", run, "a.png", "b.png", *options, "--out", "blend.png")[0] == 0
    first, second, *made = tiles("blend.png")
    assert (first == pixels("a.png")).all() and (second == pixels("b.png")).all() and len(made) == 5
    assert abs(made[0] - first).max() < 20 and abs(made[-1] - second).max() < 20
    assert abs(made[2] - first).max() > 20 and abs(made[2] - second).max() > 20


def test_morph_and_labels_need_classes(unstir, run, classes):
    assert unstir("edit", "morph", classes, "--labels", 3, 8, "--count", 4, "--num", 2)[0] == 0
    (made,) = (classes / "edits").glob("morph-3-8-seed0-*.png")
    rows = tiles(made, rows=2).reshape(2, 4, 8, 8)
    assert (rows[0] != rows[1]).any()
    for row in rows:
        assert abs(row[0] - row[3]).max() > abs(row[0] - row[1]).max() > 0
    for label, column in ((3, 0), (8, 3)):  # the ends are what sampling gives for these labels
        assert unstir("sample", classes, "--label", label, "--num", 2, "--out", f"made{label}")[0] == 0
        for i in range(2):
            assert abs(pixels(f"made{label}/{i:06d}.png") - rows[i, column]).max() <= 1
    assert unstir("edit", "blend", classes, "a.png", "b.png", "--labels", 0, 1, "--out", "blend.png")[0] == 0
    for command in (("inpaint", "--box", 0, 0, 4, 4), ("vary",), ("invert",)):
        name, *options = command
        assert unstir("edit", name, classes, "a.png", *options, "--label", 0, "--out", "out.png")[0] == 0
        refused(unstir("edit", name, classes, "a.png", *options), "--label", "0..9")
        refused(unstir("edit", name, classes, "a.png", *options, "--label", 10), "--label 10", "0..9")
        refused(unstir("edit", name, run, "a.png", *options, "--label", 1), "--label 1")
    refused(unstir("edit", "blend", classes, "a.png", "b.png"), "--labels")
    refused(unstir("edit", "blend", classes, "a.png", "b.png", "--labels", 0, -1), "--labels -1", "0..9")
    refused(unstir("edit", "morph", classes, "--labels", 0, 11), "--labels 11", "0..9")
    refused(unstir("edit", "morph", run, "--labels", 0, 1), "--labels", "name a run")


def test_a_network_trained_with_hidden_labels_is_guided_and_does_without(unstir, once):
    guided = once("guided", model__num_classes=10, train__condition_dropout=0.5)
    assert unstir("edit", "vary", guided, "a.png", "--out", "none.png")[0] == 0
    pictures = []
    for scale in (1, 3):
        options = ("--label", 0, "--guidance", scale, "--strength", 0.7, "--out", "out.png")
        assert unstir("edit", "vary", guided, "a.png", *options)[0] == 0
        pictures.append(tiles("out.png"))
        assert unstir("edit", "morph", guided, "--labels", 1, 2, "--guidance", scale, "--out", "m.png")[0] == 0
    assert (pictures[0] != pictures[1]).any()


def test_what_is_said_of_guidance_is_of_the_part_of_the_chain_that_was_taken(unstir, once):
    guided = once("guided", model__num_classes=10, train__condition_dropout=0.5)
    half = ("edit", "vary", guided, "a.png", "--label", 0, "--strength", 0.5, "--guidance", 3, "--out", "out.png")
    for options, words in (
        ((), "computed for two conditions (guidance)"),
        (("--guidance-low", 5), "computed for two conditions (guidance) at t = 5 to 10"),
        (("--guidance-low", 5, "--guidance-high", 7), "computed for two conditions (guidance) at t = 5 to 7"),
        (("--guidance-low", 1, "--guidance-high", 15), "computed for two conditions (guidance)"),
        (
            ("--steps", 2, "--guidance-low", 6, "--guidance-high", 8),
            "and guidance never acts: no time that the chain visits is in t = 6 to 8",
        ),
    ):
        assert unstir.done(*half, *options).splitlines()[1].endswith(words)
        assert json.loads(Path("out.json").read_text())["cost"].endswith(f" calls, {words}")
    Path("out.png").unlink()
    refused(unstir(*half, "--guidance-low", 11), "--guidance-low 11", "strength=0.5", "--guidance-low 10")
    assert not Path("out.png").exists()


def test_a_guided_morph_counts_the_calls_without_a_label_and_no_second_label_in_a_call(unstir, once):
    guided = once("guided", model__num_classes=10, train__condition_dropout=0.5)
    ask = ("edit", "morph", guided, "--labels", 1, 2, "--guidance", 3, "--steps", 2, "--out", "m.png")
    for options, expected in (
        ((), "6 calls"),  # at each step, those of the two classes and one without
        (("--guidance-low", 15), "5 calls"),
        (("--guidance-low", 2, "--guidance-high", 3), "4 calls, and guidance never acts: no time that the chain"),
    ):
        status, out, _ = unstir(*ask, *options)
        cost = json.loads(Path("m.json").read_text())["cost"]
        assert status == 0 and (cost == expected if expected.endswith("calls") else cost.startswith(expected))
        assert f"calls    {expected[0]} " in out and ("," in out) == ("," in expected)


def test_a_run_that_is_guided_at_high_times_alone_is_varied_below_them(unstir, once):
    habit = {"grids__guidance": 3.0, "grids__guidance_low": 15}
    run = once("habit", model__num_classes=10, train__condition_dropout=0.5, **habit)
    assert "guidance" not in unstir.done("edit", "vary", run, "a.png", "--label", 0, "--strength", 0.5)


def test_an_edit_that_runs_out_of_memory_says_what_to_lower(unstir, run, watched):
    watched(Denoiser, "__call__", MemoryError())
    refused(unstir("edit", "vary", run, "a.png", "--num", 40, "--out", "out.png"), "out of memory; lower --batch-size")
    assert not Path("out.png").exists()
