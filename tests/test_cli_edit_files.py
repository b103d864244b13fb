"""`unstir edit`: each picture has its settings beside it, no file of others is overwritten, mistakes are refused."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import edited
from refusals import refused
from unstir.runs.run import Run

once, run = edited.once, edited.run


def test_each_picture_has_its_settings_beside_it_and_other_settings_another_file(unstir, run):
    Image.linear_gradient("L").point(lambda grey: 255 * (grey > 99)).resize((8, 8), 0).save("mask.png")
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
    assert [record["command"].split()[2] for record in settings] == [name for name, *_ in commands]
    hashes = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("a.png", "b.png", "mask.png")}
    assert settings[1]["mask"] == {"name": "mask.png", "sha256": hashes["mask.png"]}
    assert settings[0]["box"] == [0, 0, 4, 4]
    assert all(record["image"]["sha256"] == hashes["a.png"] for record in settings[:-1])
    assert settings[-1]["image2"]["sha256"] == hashes["b.png"] and settings[-1]["count"] == 3
    assert len({record["weights"] for record in settings}) == 3  # averaged, raw, and of an earlier step
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
    refused(unstir("edit", "vary", run, "a.png", "--out", "mine.png"), "mine.json")
    assert (tmp_path / "mine.json").read_text() == '{"precious": 1}' and not (tmp_path / "mine.png").exists()
    for strength in (0.3, 0.6):  # what --out names is replaced, with its settings
        assert unstir("edit", "vary", run, "a.png", "--strength", strength, "--out", "own.png")[0] == 0
        assert json.loads((tmp_path / "own.json").read_text())["strength"] == strength


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("inpaint RUN a.png", ["--mask"]),
        ("inpaint RUN a.png --box 0 0 4 4 --mask a.png", ["--mask a.png"]),
        ("inpaint RUN a.png --box 5 0 4 4", ["--box 5 0 4 4", "8x8"]),
        ("inpaint RUN a.png --box 0 0 0 4", ["--box 0 0 0 4"]),
        ("inpaint RUN a.png --box 0 0 8 8", ["--box 0 0 8 8"]),
        ("inpaint RUN a.png --mask black.png", ["--mask black.png", "white"]),
        ("inpaint RUN a.png --mask white.png", ["--mask white.png", "smaller"]),
        ("inpaint RUN a.png --mask wide.png", ["--mask wide.png", "8x8"]),
        ("inpaint RUN a.png --mask nowhere.png --num 2", ["nowhere.png"]),
        ("inpaint RUN a.png --box 0 0 4 4 --resamples 0", ["--resamples 0", "--resamples 1"]),
        ("inpaint RUN a.png --box 0 0 4 4 --num 0", ["--num 0", "--num 1"]),
        ("vary RUN notes.txt", ["notes.txt"]),
        ("vary RUN small.png", ["small.png"]),
        ("vary RUN a.png --strength 0", ["--strength 0 ", "(0, 1]"]),
        ("vary RUN a.png --guidance 2", ["--guidance 2 ", "condition_dropout"]),
        ("vary RUN a.png --out picture.jpg", ["--out picture.jpg", ".png"]),
        ("vary RUN a.png --out a.png", ["--out a.png"]),
        ("vary RUN a.png --out folder.png", ["folder.png"]),
        ("vary RUN a.png --out notes.txt/deeper/x.png", ["notes.txt"]),
        ("invert RUN a.png --steps 0", ["--steps 0"]),
        ("invert RUN a.png --refinements -1", ["--refinements -1", "--refinements 0"]),
        ("blend RUN a.png", ["--numbers"]),
        ("blend RUN a.png b.png --numbers 0 1", ["--numbers"]),
        ("blend RUN --numbers 0 -1", ["--numbers -1"]),
        ("blend RUN a.png b.png --count 1", ["--count 1", "--count 2"]),
        ("blend RUN a.png folder", ["folder"]),
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
    run, _ = trained("guided", model__num_classes=10, train__condition_dropout=0.5, grids__guidance=2.0)
    picture = tmp_path / "a.png"
    Image.new("L", (8, 8), 90).save(picture)
    refused(command("edit", "vary", run.path, picture, "--guidance", 5), "--label")
    for label in ((), ("--label", 3)):  # what the run's grids set is no mistake of the user's
        assert command("edit", "inpaint", run.path, picture, "--box", 0, 0, 4, 4, "--num", 2, *label)[0] == 0
