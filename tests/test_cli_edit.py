"""`unstir edit` as a person uses it, on tiny runs: what each command writes, and what is refused."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import tiny_config
from unstir import edit
from unstir.diffusion.samplers import Step
from unstir.edit import editing
from unstir.generate.drawing import Job
from unstir.pictures import grid as grids
from unstir.pictures.caption import cut
from unstir.pictures.grid import GAP, LINE, TILE, named_grid
from unstir.runs import sidecar
from unstir.runs.run import Run
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer


@pytest.fixture(scope="module")
def once(digits, tmp_path_factory):
    """once(name, **changes) -> the folder of a tiny run, made once for all tests here."""
    made = {}

    def train(name, **changes):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("runs") / name
            config = tiny_config(digits, train__length="40 steps", train__lr=0.01, train__ema_decay=0.5, **changes)
            store = open_data(config, made[name])
            Trainer(open_run(config, made[name], store), store).run()
        return made[name]

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


def pixels(name):
    with Image.open(name) as picture:
        return np.asarray(picture).astype(int)


def refused(result, *words):
    """The call was a user's mistake: status 2, one line, no traceback, and it says what is named."""
    status, out, err = result
    assert status == 2 and out == "", (status, out, err)
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("unstir: ") and "Traceback" not in err, err
    for word in words:
        assert word in err, err


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (
            "inpaint a.png --box 0 0 4 4 --num 12",
            ["given", "to fill in", *(f"result {i}" for i in range(10)), "10", "11"],
        ),
        ("vary a.png --num 2", ["given", "result 0", "result 1"]),
        ("invert a.png", ["given", "noise", "back"]),
        ("blend a.png b.png --count 3", ["first", "second", "0%", "50%", "100%"]),
        ("blend --numbers 0 5 --count 3", ["0%", "50%", "100%"]),
        ("morph --labels 3 8 --count 3 --num 2", ["0%", "50%", "100%"] * 2),
    ],
)
def test_each_tile_of_a_picture_has_its_name_above_it(unstir, run, classes, monkeypatch, asked, names):
    name, *options = asked.split()
    drawn, kept = [], []
    monkeypatch.setattr(editing, "named_grid", lambda *given: drawn.append(given) or named_grid(*given))
    monkeypatch.setattr(grids, "cut", lambda text, width: kept.append(cut(text, width)) or kept[-1])
    assert unstir("edit", name, classes if name == "morph" else run, *options, "--out", "out.png")[0] == 0
    ((tiles, _, shown),) = drawn
    assert list(shown) == names and len(tiles) == len(names)
    assert set(names) <= set(kept), "a name is too long for its tile"


def test_inpaint_keeps_what_it_should(unstir, run):
    status, out, _ = unstir("edit", "inpaint", run, "a.png", "--box", 1, 2, 3, 4, "--num", 3, "--out", "in.png")
    assert status == 0 and out == "picture  in.png\ncalls    21 of the network\n"
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


def test_each_picture_has_its_settings_beside_it_and_other_settings_another_file(unstir, run):
    shutil.copy("b.png", "mask.png")
    commands = [
        ("inpaint", "a.png", "--box", 0, 0, 4, 4, "--num", 1, "--resamples", 1, "--steps", 5),
        ("inpaint", "a.png", "--mask", "mask.png", "--num", 1, "--resamples", 1, "--steps", 5),
        ("vary", "a.png", "--num", 1),
        ("vary", "a.png", "--num", 1, "--strength", 0.5),
        ("vary", "a.png", "--num", 1, "--sampler", "ddim"),
        ("vary", "a.png", "--num", 1, "--seed", 1),
        ("vary", "a.png", "--num", 1, "--no-ema"),
        ("vary", "a.png", "--num", 1, "--checkpoint", Run.open(run).saved_steps()[-2]),
        ("invert", "a.png"),
        ("invert", "a.png", "--refinements", 1),
        ("blend", "a.png", "b.png", "--count", 3),
    ]
    files = [unstir("edit", name, run, *rest)[1].splitlines()[0].split()[1] for name, *rest in commands]
    assert len(set(files)) == len(commands) == len(list((run / "edits").glob("*.png")))
    before = {file: Path(file).read_bytes() for file in files}
    again = [unstir("edit", name, run, *rest)[1].splitlines()[0].split()[1] for name, *rest in commands]
    assert again == files and {file: Path(file).read_bytes() for file in files} == before
    settings = [json.loads(Path(file).with_suffix(".json").read_text()) for file in files]
    assert [each["command"].split()[2] for each in settings] == [name for name, *_ in commands]
    hashes = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("a.png", "b.png")}
    assert settings[1]["mask"] == {"name": "mask.png", "sha256": hashes["b.png"]} and settings[0]["box"] == [0, 0, 4, 4]
    assert all(each["image"]["sha256"] == hashes["a.png"] for each in settings[:-1])
    assert settings[-1]["image2"]["sha256"] == hashes["b.png"] and settings[-1]["count"] == 3
    assert len({each["weights"] for each in settings}) == 3  # averaged, raw, and of an earlier step
    assert settings[3]["strength"] == 0.5 and settings[4]["chain"]["sampler"] == "ddim"
    assert settings[8]["psnr"] != settings[9]["psnr"] > [10] and "psnr" not in settings[3]
    shutil.copy("b.png", "a.png")  # another image of the same name
    unstir("edit", *commands[2][:1], run, *commands[2][1:])
    assert (
        len(list((run / "edits").glob("*.png"))) == len(commands) + 1
        and Path(files[2]).read_bytes() == before[files[2]]
    )


def test_a_json_file_of_the_users_is_not_overwritten(unstir, run, tmp_path):
    (tmp_path / "mine.json").write_text('{"precious": 1}')
    refused(unstir("edit", "vary", run, "a.png", "--out", "mine.png"), "mine.json", "another file")
    assert (tmp_path / "mine.json").read_text() == '{"precious": 1}' and not (tmp_path / "mine.png").exists()
    for strength in (0.3, 0.6):  # what --out names is replaced, with its settings
        assert unstir("edit", "vary", run, "a.png", "--strength", strength, "--out", "own.png")[0] == 0
        assert json.loads((tmp_path / "own.json").read_text())["strength"] == strength


class Stopped(BaseException):
    """What ends a save in the middle."""


def test_a_save_that_fails_leaves_no_picture_with_settings_not_its_own(tmp_path, monkeypatch):
    file, settings = tmp_path / "own.png", tmp_path / "own.json"
    picture = lambda grey: Image.new("L", (8, 8), grey)
    stop, done = [None], []  # the calls begun, and which of them does not happen

    def stopping(owner, name):
        work = getattr(owner, name)

        def call(*given, **options):
            done.append(name)
            if len(done) == stop[0]:
                raise Stopped
            return work(*given, **options)

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((Image.Image, "save"), (Path, "unlink"), (Path, "replace"), (os, "fsync")):
        stopping(owner, name)
    sidecar.save(file, sidecar.png(picture(0)), "unstir test", {"grey": 0})
    calls = len(done)
    for number in range(1, calls + 1):
        sidecar.save(file, sidecar.png(picture(0)), "unstir test", {"grey": 0})
        done.clear()
        stop[0] = number
        with pytest.raises(Stopped):
            sidecar.save(file, sidecar.png(picture(200)), "unstir test", {"grey": 200})
        stop[0] = None
        assert not settings.exists() or json.loads(settings.read_text())["grey"] == pixels(file)[0, 0], number
        assert settings.exists() or number > 2  # a picture that cannot be written takes nothing from the old one
        assert {path.name for path in tmp_path.glob(".*")} <= {f".{file.name}.unfinished"}
    sidecar.save(file, sidecar.png(picture(200)), "unstir test", {"grey": 200})
    assert not list(tmp_path.glob(".*"))
    assert json.loads(settings.read_text())["grey"] == pixels(file)[0, 0] == 200 and calls > 6


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


def test_many_results_come_in_batches(unstir, run):
    model, made = Run.open(run).model(), []
    for batch_size in (64, 2):
        job = Job(num=5, chain=model.chain, batch_size=batch_size)
        made.append(edit.vary(model, Path("a.png"), job, strength=0.6).made.int())
    assert len(made[0]) == 5 and (made[0] - made[1]).abs().max() <= 1


def test_invert_says_how_well_it_came_back(unstir, run):
    quality = []
    for refinements in (0, 4):
        status, out, _ = unstir(
            "edit", "invert", run, "a.png", "--steps", 20, "--no-clip", "--refinements", refinements, "--out", "in.png"
        )
        picture, calls, came_back = out.splitlines()
        assert (status, picture) == (0, "picture  in.png") and int(calls.split()[1]) % (refinements + 2) == 0
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
        refused(unstir("edit", name, classes, "a.png", *options), "10 classes", "0..9", "--label")
        refused(unstir("edit", name, classes, "a.png", *options, "--label", 10), "label=10", "0..9")
        refused(unstir("edit", name, run, "a.png", *options, "--label", 1), "--label 1", "no classes")
    refused(unstir("edit", "blend", classes, "a.png", "b.png"), "10 classes", "--labels")
    refused(unstir("edit", "blend", classes, "a.png", "b.png", "--labels", 0, -1), "label=-1", "0..9")
    refused(unstir("edit", "morph", classes, "--labels", 0, 11), "label=11", "0..9")
    refused(unstir("edit", "morph", run, "--labels", 0, 1), "no classes", "blend")


def test_a_network_trained_with_hidden_labels_is_guided_and_does_without(unstir, once):
    guided = once("guided", model__num_classes=10, train__label_dropout=0.5)
    assert unstir("edit", "vary", guided, "a.png", "--out", "none.png")[0] == 0
    pictures = []
    for scale in (1, 3):
        options = ("--label", 0, "--guidance", scale, "--strength", 0.7, "--out", "out.png")
        assert unstir("edit", "vary", guided, "a.png", *options)[0] == 0
        pictures.append(tiles("out.png"))
        assert unstir("edit", "morph", guided, "--labels", 1, 2, "--guidance", scale, "--out", "m.png")[0] == 0
    assert (pictures[0] != pictures[1]).any()


def test_the_noise_of_filling_in_is_named_by_use_time_visit_and_image(unstir, run, monkeypatch):
    kept = []

    def spy(denoise, process, image, mask, x_T, times, noise, **_):
        kept.append(noise)
        yield Step(0, image, image)

    monkeypatch.setattr("unstir.diffusion.editing.inpaint", spy)
    opened = Run.open(run)
    edit.inpaint(opened.model(), Path("a.png"), Job(chain=opened.chain(), num=3), box=(0, 0, 4, 4))
    (noise,) = kept
    drawn = [noise(use, t, visit) for use in ("step", "known", "back") for t in (1, 2, 20) for visit in (0, 1, 9)]
    assert drawn[0].shape == (3, 1, 8, 8) and torch.equal(drawn[0], noise("step", 1, 0))
    assert len({image.numpy().tobytes() for images in drawn for image in images}) == 3 * 27


def test_weights_clamp_and_guidance_are_what_was_asked(unstir, once, run):
    path = Path("a.png")
    for folder, guidances in (
        (run, (1.0,)),
        (once("guided", model__num_classes=10, train__label_dropout=0.5), (1.0, 3.0)),
    ):
        opened, made = Run.open(folder), set()
        for guidance, clip, ema in [(guidance, *rest) for guidance in guidances for rest in ((0, 1), (1, 1), (0, 0))]:
            chain = replace(opened.chain(), guidance=guidance, clip=bool(clip), steps=5)
            job = Job(chain=chain, num=2, label=0 if len(guidances) > 1 else None)
            done = edit.inpaint(opened.model(ema=bool(ema)), path, job, box=(0, 0, 6, 6), resamples=2)
            made.add(done.made.numpy().tobytes())
        assert len(made) == 3 * len(guidances)


def test_library_calls_count_every_network_call(unstir, run):
    model = Run.open(run).model()
    job = Job(chain=model.chain, num=3, batch_size=2)
    pair, path = (Path("a.png"), Path("b.png")), Path("a.png")
    for work in (
        lambda told: edit.inpaint(model, path, job, box=(0, 0, 4, 4), resamples=3, progress=told),
        lambda told: edit.vary(model, path, job, strength=0.3, progress=told),
        lambda told: edit.invert(model, path, job, progress=told),
        lambda told: edit.blend(model, pair, job, progress=told),
    ):
        counted = []
        result = work(lambda done, total, counted=counted: counted.append((done, total)))
        assert [done for done, _ in counted] == list(range(1, len(counted) + 1))
        assert {total for _, total in counted} == {len(counted)}
        assert result.given.dtype == result.made.dtype == torch.uint8


def test_calls_are_counted_for_each_class_and_for_guidance(unstir, once):
    known = Run.open(once("classes", model__num_classes=10)).model()
    hidden = Run.open(once("guided", model__num_classes=10, train__label_dropout=0.5)).model()
    pair, jobs = (Path("a.png"), Path("b.png")), {}
    for scale in (1.0, 3.0):
        jobs[scale] = Job(chain=replace(known.chain, sampler="ddim", steps=2, guidance=scale), num=2, batch_size=3)
    for calls, work in (
        (2, lambda told: edit.blend(known, (4, 1), jobs[1.0], labels=(3, 3), count=3, progress=told)),
        (4, lambda told: edit.blend(known, (4, 1), jobs[1.0], labels=(3, 5), count=3, progress=told)),
        (14, lambda told: edit.blend(known, pair, jobs[1.0], labels=(3, 3), count=3, progress=told)),
        (16, lambda told: edit.blend(known, pair, jobs[1.0], labels=(3, 5), count=3, progress=told)),
        (8, lambda told: edit.morph(known, jobs[1.0], labels=(3, 5), count=3, progress=told)),
        (8, lambda told: edit.morph(hidden, jobs[1.0], labels=(3, 5), count=3, progress=told)),
        (12, lambda told: edit.morph(hidden, jobs[3.0], labels=(3, 5), count=3, progress=told)),
    ):
        counted = []
        result = work(lambda done, total, counted=counted: counted.append((done, total)))
        assert counted == [(done, calls) for done in range(1, calls + 1)] and result.calls == calls


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("inpaint RUN a.png", ["--mask", "--box"]),
        ("inpaint RUN a.png --box 0 0 4 4 --mask a.png", ["--mask", "--box", "not by both"]),
        ("inpaint RUN a.png --box 5 0 4 4", ["--box 5 0 4 4", "8x8"]),
        ("inpaint RUN a.png --box -1 0 4 4", ["--box -1 0 4 4", "8x8"]),
        ("inpaint RUN a.png --box 0 0 0 4", ["--box 0 0 0 4", "width"]),
        ("inpaint RUN a.png --box 0 0 8 8", ["nothing of the image is kept", "unstir sample"]),
        ("inpaint RUN a.png --mask black.png", ["black.png has no white part", "paint white"]),
        ("inpaint RUN a.png --mask white.png", ["nothing of the image is kept", "black"]),
        ("inpaint RUN a.png --mask wide.png", ["wide.png is 9x7", "8x8"]),
        ("inpaint RUN a.png --mask notes.txt", ["notes.txt", "no picture"]),
        ("inpaint RUN a.png --mask nowhere.png --num 2", ["nowhere.png", "name a picture"]),
        ("inpaint RUN a.png --box 0 0 4 4 --resamples 0", ["resamples=0", "at least 1"]),
        ("inpaint RUN a.png --box 0 0 4 4 --steps 21", ["steps=21", "1..20"]),
        ("inpaint RUN a.png --box 0 0 4 4 --num 0", ["num=0", "at least 1"]),
        ("inpaint RUN nowhere.png --box 0 0 4 4", ["nowhere.png", "name a picture"]),
        ("inpaint RUN notes.txt --box 0 0 4 4", ["notes.txt", "no picture"]),
        ("vary RUN small.png", ["small.png", "too small"]),
        ("vary RUN a.png --strength 0", ["strength=0.0", "(0, 1]", "0.6"]),
        ("vary RUN a.png --strength 1.5", ["strength=1.5", "(0, 1]"]),
        ("vary RUN a.png --strength nan", ["strength=nan", "(0, 1]"]),
        ("vary RUN a.png --steps 21", ["steps=21", "1..20"]),
        ("vary RUN a.png --sampler magic", ["magic", "ancestral"]),
        ("vary RUN a.png --variance learned", ["a network that has learned it"]),
        ("vary RUN a.png --guidance 2", ["guidance=2.0", "label_dropout"]),
        ("vary RUN a.png --checkpoint 77", ["step 77", "was not saved"]),
        ("vary RUN a.png --device cuda:9", ["cuda:9"]),
        ("vary RUN a.png --out picture.jpg", ["picture.jpg", ".png"]),
        ("vary nowhere a.png", ["nowhere", "does not exist"]),
        ("vary RUN a.png --out folder.png", ["folder.png is a folder"]),
        ("vary RUN a.png --out notes.txt/x.png", ["cannot make the folder notes.txt", "notes.txt is a file"]),
        ("vary RUN a.png --out notes.txt/deeper/x.png", ["cannot make", "notes.txt is a file"]),
        ("invert RUN a.png --steps 0", ["steps=0", "at least 1"]),
        ("invert RUN a.png --refinements -1", ["refinements=-1", "at least 0"]),
        ("blend RUN a.png", ["two images", "--numbers"]),
        ("blend RUN a.png b.png --numbers 0 1", ["two images", "--numbers"]),
        ("blend RUN --numbers 0 -1", ["numbered from 0"]),
        ("blend RUN a.png b.png --count 1", ["count=1", "at least 2"]),
        ("blend RUN a.png folder", ["folder", "name a picture"]),
        ("morph RUN", ["labels"]),
    ],
)
def test_mistakes_are_refused_in_one_line_and_leave_nothing(unstir, run, tmp_path, arguments, words):
    for name, size, grey in (("black", (8, 8), 0), ("white", (8, 8), 255), ("wide", (9, 7), 255), ("small", (3, 9), 0)):
        Image.new("L", size, grey).save(f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture at all")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    refused(unstir("edit", *(str(run) if word == "RUN" else word for word in arguments.split())), *words)
    assert not (run / "edits").exists() and not (tmp_path / "picture.jpg").exists()


def test_guidance_without_a_class_to_lead_to_is_refused_or_left_aside(trained, command, tmp_path):
    run, _ = trained("guided", model__num_classes=10, train__label_dropout=0.5, grids__guidance=2.0)
    picture = tmp_path / "a.png"
    Image.new("L", (8, 8), 90).save(picture)
    status, _, err = command("edit", "vary", run.path, picture, "--guidance", 5)
    assert status == 2 and "name it with --label" in err
    for label in ((), ("--label", 3)):  # what the run's grids set is no mistake of the user's
        assert command("edit", "inpaint", run.path, picture, "--box", 0, 0, 4, 4, "--num", 2, *label)[0] == 0
