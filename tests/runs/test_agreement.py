"""The settings and the data beside weights are those that the weights were trained with, whoever loads them."""

import dataclasses
import re

import pytest

from unstir.errors import KeptSettingsError, UserError
from unstir.runs import card, loading
from unstir.runs.config import MAY_CHANGE
from unstir.runs.loading import check_same, model_of
from unstir.runs.run import Run
from unstir.train.trainer import Trainer

EDITS = {
    "beta_T": ("diffusion", "0.3", "0.2"),
    "T": ("diffusion", "20", "30"),
    "predict": ("diffusion", '"eps"', '"v"'),
    "schedule": ("diffusion", '"linear"', '"cosine"'),
    "norm_eps": ("model", "1e-06", "0.1"),
    "freq_shift": ("model", "1.0", "0.0"),
    "heads": ("model", "1", "2"),
    "lr": ("train", "0.0002", "0.1"),
    "seed": ("", "0", "7"),
}
"""Each a key of config.toml, its section, its value in the tiny run, and another that draws or learns otherwise."""


def edit(run, key, value):
    file = run.path / "config.toml"
    text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", file.read_text(), count=1, flags=re.M)
    assert count == 1
    file.write_text(text)
    return Run.open(run.path)


@pytest.mark.parametrize("key", EDITS)
def test_an_edited_setting_is_refused_by_whoever_loads_the_weights(trained, key):
    run, store = trained()
    loaded = run.load()
    section, was, now = EDITS[key]
    edited = edit(run, key, now)
    ways = {
        "load": edited.load,
        "model": edited.model,
        "given": lambda: model_of(edited, loaded),
        "guide": lambda: run.model(1, guide=f"{run.path}@12"),
        "train": lambda: Trainer(edited, store),
    }
    for way in ways.values():
        with pytest.raises(UserError) as refusal:
            way()
        said, name = str(refusal.value), f"{section}.{key}" if section else key
        assert f"{name} is {now}, not {was}" in said and f"write {key} = {was}" in said and "\n" not in said
    with pytest.raises(UserError, match=re.escape(said)):
        check_same(edited, loaded)
    check_same(edit(run, key, was), loaded)


def test_settings_are_compared_once_for_each_model(trained, command, monkeypatch, tmp_path):
    run, _ = trained()
    asked, different = [], loading._different
    monkeypatch.setattr(loading, "_different", lambda *configs: asked.append(1) or different(*configs))
    assert command("sample", run.path, "--num", 1, "--out", tmp_path / "made")[0] == 0 and len(asked) == 1
    ask = ("sample", run.path, "--num", 1, "--guidance", 2, "--guide", 8)
    assert command(*ask, "--out", tmp_path / "led")[0] == 0 and len(asked) == 3


def test_the_commands_refuse_it_in_one_line(trained, unstir):
    run, _ = trained()
    edit(run, "beta_T", "0.2")
    commands = (
        ("sample", run.path, "--num", 2),
        ("likelihood", run.path, "--num", 2),
        ("evaluate", run.path, "--num", 32),
        ("edit", "vary", run.path, "a.png", "--strength", 0.5),
        ("report", run.path),
        ("train", "--out", run.path),
    )
    for words in commands:
        status, out, err = unstir(*words)
        assert status == 2 and out == "", words
        assert "diffusion.beta_T is 0.2, not 0.3" in err and err.count("\n") == 1, words
    assert not (run.path / "generated").exists() and not (run.path / "likelihood").exists()


def test_a_config_that_was_cut_short_is_refused(trained):
    run, _ = trained(diffusion__T=60)
    file = run.path / "config.toml"
    text = file.read_text()
    for section in ("[diffusion]", "[loss]", "[train]"):
        file.write_text(text[: text.index(section)])
        with pytest.raises(UserError, match=r"config.toml is not what .*restore it from a copy"):
            Run.open(run.path).load()


def test_what_may_change_when_continuing_is_no_difference(trained):
    run, _ = trained()
    for key, value in (("length", '"24 steps"'), ("every", '"3 steps"'), ("sampler", '"ddim"'), ("log_spaced", "4")):
        edited = edit(run, key, value)
        assert edited.config != run.config and edited.model().denoiser is not None
    assert "train.length" in MAY_CHANGE


OTHER_DATA = {
    "content_hash": "ab" * 32,
    "shape": (1, 9, 9),
    "classes": ("a",),
    "counts": {"train": 9, "held_out": 0},
}


@pytest.mark.parametrize("key", OTHER_DATA)
def test_the_data_of_another_set_is_refused(trained, key):
    run, store = trained()
    card.save(run.path, dataclasses.replace(run.data, **{key: OTHER_DATA[key]}))
    other = Run.open(run.path)
    for way in (other.load, other.model, lambda: Trainer(other, store)):
        with pytest.raises(UserError, match=rf"data.json is not of the data .*: {key} is .*restore it"):
            way()


def test_every_flip_in_the_data_card_is_noticed(trained):
    run, _ = trained()
    file = run.path / "data.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        try:
            assert Run.open(run.path).data == run.data  # a space for another
        except UserError as error:
            assert "data.json" in str(error)
    file.write_text('{"shape": [1, 8, 8], "classes": [], "counts": {"train": 8, "held_out": 0}, "content_hash": ""}')
    with pytest.raises(UserError, match="it has no checksum; restore it"):
        Run.open(run.path)


@pytest.mark.parametrize("ask", ["sample", "vary", "evaluate"])
def test_changed_settings_of_the_chain_are_said_by_whoever_samples_by_them(trained, command, ask, tmp_path):
    run, _ = trained()
    assert command("sample", run.path, "--num", 1, "--steps", 2, "--out", tmp_path / "as it was")[2] == ""
    edit(run, "sampler", '"ddim"')
    edit(run, "eta", "0.5")
    arguments = {
        "sample": ["sample", run.path, "--num", 1, "--steps", 2, "--out", tmp_path / "changed"],
        "vary": [
            "edit",
            "vary",
            run.path,
            tmp_path / "as it was/000000.png",
            "--steps",
            2,
            "--out",
            tmp_path / "v.png",
        ],
        "evaluate": ["evaluate", run.path, "--num", 20, "--seeds", 1, "--steps", 2],
    }[ask]
    status, _, err = command(*arguments)
    assert status == 0 and sorted(re.findall(r"grids\.\w+ is", err)) == ["grids.eta is", "grids.sampler is"], err
    assert "config.toml has changed since step 12 was saved: " in err and 'not "ancestral"' in err


def test_what_the_training_was_told_to_change_in_grids_is_no_surprise(trained, make_run, tmp_path, logged):
    run, _ = trained()
    make_run("run", grids__steps=2)  # as unstir train records it
    logged.clear()
    edit(run, "num", "9").model()  # of the grids of a training alone
    assert logged == []
    edit(run, "steps", "4").model()
    assert len(logged) == 1 and logged[0].endswith("was saved: grids.steps is 4, not 3")


def test_what_is_wrong_with_a_run_is_not_laid_on_its_guide(trained):
    run, _ = trained()
    with pytest.raises(UserError) as refusal:
        edit(run, "beta_T", "0.2").model(guide=str(run.saved_steps()[0]))
    assert "guide" not in str(refusal.value) and "diffusion.beta_T is 0.2, not 0.3" in str(refusal.value)


def test_a_setting_that_a_run_keeps_is_named_with_what_was_asked(trained):
    run, _ = trained()
    asked = dataclasses.replace(run.config, recipe="", seed=run.config.seed + 1)
    with pytest.raises(KeptSettingsError) as refused:
        loading.compare(run.config, asked)
    assert refused.value.keys == ("seed",) and refused.value.given == asked.seed


def test_eight_differences_are_all_named_and_more_are_counted():
    names = [f"k{number}" for number in range(10)]
    assert loading._shortened(names[:8]) == "k0, k1, k2, k3, k4, k5, k6, k7"
    assert loading._shortened(names) == "k0, k1, k2, k3, k4, k5, k6, k7, and 2 more"
