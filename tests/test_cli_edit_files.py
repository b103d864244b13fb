"""The files of `unstir edit`: each picture with its own settings beside it, and nothing of the user's overwritten."""

import hashlib
import json
import shutil
from pathlib import Path

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
