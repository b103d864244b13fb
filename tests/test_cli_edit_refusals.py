"""What `unstir edit` refuses, in one line and before it makes anything."""

import pytest
from PIL import Image

import edited
from refusals import refused

once, run = edited.once, edited.run


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
        ("vary RUN a.png --strength nan", ["--strength nan", "(0, 1]"]),
        ("vary RUN a.png --steps 21", ["--steps 21", "1..20"]),
        ("vary RUN a.png --variance learned", ["learned"]),
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
