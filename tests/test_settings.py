"""The settings kept beside images and pictures hold all that decides the pixels, and are kept to when a job goes on."""

import dataclasses
import inspect
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import pytest
import torch
from PIL import Image

from conftest import tiny_config
from unstir import edit
from unstir.chain import Chain
from unstir.data.embedded import load_embedded
from unstir.generate import folder
from unstir.generate.drawing import Job
from unstir.generate.folder import image_path, save_images
from unstir.runs import build, checkpoint
from unstir.runs.run import Run
from unstir.runs.toml import to_dict
from unstir.train.launch import train_run

GUIDED = {"model__num_classes": 10, "train__condition_dropout": 0.5, "grids__guidance": 2.0, "grids__variance": "large"}


@pytest.fixture(scope="module")
def guided(quick, digits, tmp_path_factory):
    """A run that knows ten classes, and whose own pictures are guided and of large variance; not to be changed."""
    config, out = tiny_config(digits, **GUIDED), tmp_path_factory.mktemp("runs") / "guided"
    return train_run(config, out).run


@pytest.fixture(scope="module")
def models(guided):
    """models(...) -> what the run's `model` gives for these arguments, loaded once."""
    return cache(guided.model)


@pytest.fixture
def another(guided, tmp_path):
    """another(section, key=value, ...) -> a copy of the run with these changes, as if it had been trained with them."""

    def copy(section, **values):
        path = shutil.copytree(guided.path, tmp_path / "another", dirs_exist_ok=True)
        config = replace(guided.config, **{section: replace(getattr(guided.config, section), **values)})
        changed = replace(guided, path=path, config=config)
        changed.save_config()
        for place in (changed.checkpoints, changed.weights):
            for _, file in checkpoint.listed(place):
                checkpoint.save(place, replace(checkpoint.load(file), config=to_dict(config)))
        return Run.open(path)

    return copy


@pytest.fixture
def pictures(tmp_path):
    """Four picture files, a.png and b.png in each of two folders."""
    files = [tmp_path / where / name for where in ("one", "other") for name in ("a.png", "b.png")]
    for file, digit in zip(files, load_embedded("digits")[0][:4].reshape(4, 8, 8), strict=True):
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(digit).save(file)
        Image.fromarray(digit).point(lambda grey: 255 * (grey > 127)).save(file.with_stem(f"mask-{file.stem}"))
    return files


FUNCTIONS = dict(inspect.getmembers(edit, inspect.isfunction))
EDITS = {name: made for name, made in FUNCTIONS.items() if inspect.signature(made).return_annotation is edit.Edited}
BASE = {"num": 1, "chain": Chain("ddim", steps=5, guidance=2.0), "label": 3}


def options_of(name, a, b, other_a, other_b):
    """(what an edit is usually given, for each of its options pairs of what else is given, unlike in that option)."""
    box, hole = {"box": (0, 4, 8, 4)}, {"box": None, "resamples": 2}
    mask_b, other_mask_b = (file.with_stem(f"mask-{file.stem}") for file in (b, other_b))
    return {
        "inpaint": (
            {"image": a, "resamples": 3, **box},
            {
                "image": [({}, {"image": other_a})],
                "mask": [({"mask": mask_b, **hole}, {"mask": other_mask_b, **hole})],
                "box": [({}, {"box": (0, 4, 8, 3)})],
                "resamples": [({}, {"resamples": 2})],
                "jump": [({}, {"jump": 2})],
            },
        ),
        "vary": (
            {"image": a, "strength": 0.8},
            {"image": [({}, {"image": other_a})], "strength": [({}, {"strength": 0.5})]},
        ),
        "invert": ({"image": a}, {"image": [({}, {"image": other_a})], "refinements": [({}, {"refinements": 1})]}),
        "blend": (
            {"ends": (a, b), "count": 3},
            {
                "ends": [
                    ({}, {"ends": (other_a, b)}),
                    ({}, {"ends": (a, other_b)}),
                    ({"ends": (0, 1)}, {"ends": (0, 2)}),
                    ({"ends": (0, 1)}, {"ends": (2, 1)}),
                ],
                "count": [({}, {"count": 4})],
                "labels": [({"labels": (3, 5)}, {"labels": (3, 6)}), ({"labels": (3, 5)}, {"labels": (4, 5)})],
                "refinements": [({}, {"refinements": 1})],
            },
        ),
        "morph": (
            {"labels": (3, 8), "count": 3},
            {"labels": [({}, {"labels": (3, 7)}), ({}, {"labels": (2, 8)})], "count": [({}, {"count": 4})]},
        ),
    }[name]


MODEL = {  # by an argument of Run.model: two of its values
    "step": (None, 8), "guide": ("1", "8"), "ema": (True, False), "dtype": ("float32", "bfloat16"),
    "compile": ("no", "yes"),
}  # fmt: skip
JOB = {"num": (1, 2), "label": (3, 4), "batch_size": (64, 32)}  # by a field of Job: two of its values
CHAIN = {  # by a field of its chain: two chains
    "sampler": ({}, {"sampler": "heun"}),
    "steps": ({}, {"steps": 4}),
    "spacing": ({}, {"spacing": "quadratic"}),
    "times": ({}, {"times": (20, 9, 0), "steps": 2}),
    "variance": ({"sampler": "ancestral", "variance": "small"}, {"sampler": "ancestral", "variance": "large"}),
    "clip": ({}, {"clip": False}),
    "seed": ({}, {"seed": 1}),
    "eta": ({}, {"eta": 0.5}),
    "threshold": ({}, {"threshold": 0.5}),
    "guidance": ({}, {"guidance": 3.0}),
    "guidance_low": ({}, {"guidance_low": 10}),
    "guidance_high": ({}, {"guidance_high": 10}),
    "options": ({"sampler": "unipc"}, {"sampler": "unipc", "options": {"order": 2}}),
}
INVERTED = {"guide", "sampler", "options", "variance", "eta", "guidance", "guidance_low", "guidance_high"}
ASIDE = {
    "inpaint": {"sampler", "eta", "options"}, "vary": set(), "invert": INVERTED, "blend": INVERTED, "morph": {"label"},
}  # fmt: skip
"""What an edit makes no use of, and need not record."""


def pairs(name, pictures):
    """(option, what one edit and another are given, settings among it) for all that an edit can be told."""
    usual, options = options_of(name, *pictures)
    told = inspect.signature(EDITS[name]).parameters.keys() - {"model", "job"}
    assert told == options.keys(), "an option that is not tried here"
    of_job = {each.name for each in dataclasses.fields(Job)}
    assert of_job == {"chain", "shares", "condition", *JOB}  # of the condition: test_conditions.py
    assert inspect.signature(Run.model).parameters.keys() == {"self", "device", *MODEL}
    assert {each.name for each in dataclasses.fields(Chain)} == CHAIN.keys()
    for option, tried in options.items():
        for one, other in tried:
            yield option, *({**usual, **change, "model": {}, "job": BASE} for change in (one, other))
    for option, values in MODEL.items():
        yield option, *({**usual, "model": {option: value}, "job": BASE} for value in values)
    for option, values in JOB.items():
        yield option, *({**usual, "model": {}, "job": {**BASE, option: value}} for value in values)
    for option, chains in CHAIN.items():
        chain = BASE["chain"]
        yield option, *({**usual, "model": {}, "job": {**BASE, "chain": replace(chain, **change)}} for change in chains)


@pytest.mark.parametrize("name", EDITS)
def test_each_option_of_an_edit_is_among_its_settings(models, pictures, name, monkeypatch):
    made = {}
    monkeypatch.setattr(build, "BACKEND", "eager")  # kernels would take minutes

    def edited(given):
        if repr(given) not in made:
            asked = {"model": models(**given["model"]), "job": Job(**given["job"])}
            made[repr(given)] = EDITS[name](**{**given, **asked})
        return made[repr(given)]

    for option, *asked in pairs(name, pictures):
        one, other = map(edited, asked)
        kept = [json.loads(json.dumps(each.settings)) for each in (one, other)]
        unlike = {key for key in kept[0] | kept[1] if kept[0].get(key) != kept[1].get(key)}
        if option in ASIDE[name]:
            assert torch.equal(one.made, other.made), option
        else:
            assert unlike - {"weights"}, f"{option} "


def test_there_are_five_edits():
    assert EDITS.keys() == {"inpaint", "vary", "invert", "blend", "morph"} == ASIDE.keys()


@pytest.fixture
def threads():
    """The number of threads that a test may change."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_goes_on_with_the_threads_that_it_began_with(guided, tmp_path, monkeypatch, threads, fails):
    job = Job(num=6, chain=Chain("ddim", steps=2), batch_size=2)
    seen, batch = [], folder.batch

    def watched(*given):
        seen.append(torch.get_num_threads())
        if fails and len(seen) > 3:
            raise KeyboardInterrupt
        return batch(*given)

    monkeypatch.setattr(folder, "batch", watched)
    torch.set_num_threads(1)
    save_images(guided.model(), job, tmp_path / "made")
    assert json.loads((tmp_path / "made/settings.json").read_text())["threads"] == 1 and seen == [1, 1, 1]
    torch.set_num_threads(2)
    image_path(tmp_path / "made", 3).unlink()
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        save_images(guided.model(), job, tmp_path / "made")
    assert seen == [1, 1, 1, 1] and torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("diffusion", {"options": {"beta_1": 0.01, "beta_T": 0.31}}),
        ("diffusion", {"options": {"beta_1": 0.02, "beta_T": 0.3}}),
        ("diffusion", {"predict": "v"}),
        ("model", {"norm_eps": 1e-5}),
        ("model", {"freq_shift": 0.0}),
        ("model", {"flip_sin_to_cos": True}),
    ],
)
def test_images_of_another_network_or_process_with_these_weights_are_others(
    guided, another, command, tmp_path, section, changes, refused
):
    out, options = tmp_path / "made", ("--num", 2, "--steps", 2)
    run = another(section)
    assert run.config == guided.config
    assert command("sample", run.path, *options, "--out", out)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    another(section, **changes)
    refused(command("sample", run.path, *options, "--out", out), f"({section}")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_guide_without_the_weights_asked_for_is_refused_and_leaves_no_folder(another, command, tmp_path, refused):
    run = another("grids")
    assert run.load(1).kind == "slim" and run.load(1).ema
    ask = ("sample", run.path, "--num", 2, "--guidance", 2, "--guide", 1, "--no-ema")
    for options in ((), ("--out", tmp_path / "made"), ("--compare", "ddim:2", "--out", tmp_path / "made")):
        refused(command(*ask, *options), "--guide 1")
        assert not (tmp_path / "made").exists() and not (run.path / "generated").exists()
    assert command(*ask[:-1], "--out", tmp_path / "made")[0] == 0
