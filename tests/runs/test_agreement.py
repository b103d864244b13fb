"""Weights bring their settings: an edited config.toml changes nothing, and weights of another run are not read."""

import dataclasses
import logging
import re
import shutil

import pytest

from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.errors import KeptSettingsError, UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import read_images, save_images
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.toml import changes
from unstir.train.trainer import Trainer

EDITS = {
    "diffusion.options.beta_T": "0.2", "diffusion.predict": '"v"', "model.heads": "2", "train.lr": "0.1", "seed": "7",
}  # fmt: skip
"""Keys of config.toml that a run keeps, with another value than that of the tiny run."""


def edit(run, key, value):
    file = run.path / "config.toml"
    name = key.rpartition(".")[2]
    text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", file.read_text(), count=1, flags=re.M)
    assert count == 1
    file.write_text(text)
    return Run.open(run.path)


@pytest.mark.parametrize("key", EDITS)
def test_an_edit_of_what_a_run_keeps_has_no_effect_and_is_logged_once(run, store, caplog, key):
    with caplog.at_level(logging.WARNING, "unstir"):
        edited = edit(run, key, EDITS[key])
        assert Run.open(run.path).config == edited.config == run.config
    assert [f"config.toml: {key}: " in record.getMessage() for record in caplog.records] == [True]
    assert edited.model().weights_sha256 == run.model().weights_sha256
    assert Trainer(edited, store).finished


def test_an_edit_before_anything_is_saved_counts(make_run):
    run, store = make_run()
    edited = edit(run, "diffusion.options.beta_T", "0.2")
    assert edited.config.diffusion.options["beta_T"] == 0.2
    Trainer(edited, store).run()
    assert Run.open(run.path).load().config["diffusion"]["options"]["beta_T"] == 0.2


def test_a_config_that_was_cut_short_changes_nothing(trained):
    run, _ = trained(diffusion__T=60)
    file = run.path / "config.toml"
    text = file.read_text()
    for section in ("[diffusion]", "[loss]", "[train]"):
        file.write_text(text[: text.index(section)])
        assert Run.open(run.path).config == run.config


def test_what_may_change_when_continuing_is_read_from_config_toml(run):
    for key, value in (("train.length", '"24 steps"'), ("grids.sampler", '"ddim"'), ("grids.log_spaced", "4")):
        edited = edit(run, key, value)
        assert edited.config != run.config and edited.model().denoiser is not None
    assert edited.chain().sampler == "ddim"


def test_settings_are_those_of_the_newest_file_whose_settings_are_whole(run):
    edit(run, "diffusion.options.beta_T", "0.2")
    path = checkpoint.listed(run.checkpoints)[-1][1]
    path.write_bytes(path.read_bytes().replace(b'\\"beta_T\\": 0.3', b'\\"beta_T\\": 0.4'))
    assert "damaged" in str(mistake(checkpoint.load, path))
    assert Run.open(run.path).config == run.config


def test_weights_of_another_run_are_no_ones_here(trained, run):
    other, _ = trained("other", train__lr=0.1)
    for path in (run.checkpoints, run.weights):
        shutil.rmtree(path)
        shutil.copytree(other.path / path.name, path)
    swapped = Run.open(run.path)
    assert swapped.config == run.config
    for way in (swapped.load, swapped.model, lambda: other.model(guide=str(run.path))):
        assert "no weights of its own" in str(mistake(way))


def test_every_flip_in_the_data_card_is_noticed(run):
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
    assert "no checksum" in str(mistake(Run.open, run.path))


def test_a_setting_that_a_run_keeps_is_named_with_what_was_asked(run):
    asked = dataclasses.replace(run.config, recipe="", seed=run.config.seed + 1)
    with pytest.raises(KeptSettingsError) as refused:
        changes(run.config, asked)
    assert refused.value.keys == ("seed",) and refused.value.given == asked.seed


@pytest.mark.parametrize("name", ["metrics", "held_out", "events"])
def test_lines_of_another_run_are_cut_and_a_copy_is_kept(trained, name, logged):
    run, store = trained(log__held_out_images=8, log__held_out_times=2)
    other, _ = trained("other", train__lr=0.1, log__held_out_images=8, log__held_out_times=2)
    shutil.copy(other.path / f"{name}.jsonl", run.path)
    assert run.log(name).lines == () and len(run.log(name).damaged) == len(other.log(name).lines) > 1
    Trainer(run, store).start()
    assert f"{name}.jsonl" in logged[0] and "another run" in logged[0]
    assert (run.path / f"{name}.jsonl.damaged").exists() and run.log(name).damaged == ()


def test_an_image_of_other_weights_is_drawn_again_and_not_shown_before(trained, tmp_path, logged):
    run, job = trained()[0], Job(num=4, chain=Chain("ddim", steps=2))
    for name, ema in (("ours", True), ("theirs", False)):
        save_images(run.model(ema=ema), job, tmp_path / name)
    before = (tmp_path / "ours/000002.png").read_bytes()
    shutil.copy(tmp_path / "theirs/000002.png", tmp_path / "ours")
    with refusing("", tmp_path / "ours/000002.png"):
        read_images(tmp_path / "ours", 4)
    assert len(logged) == 1 and "000002.png" in logged[0]
    save_images(run.model(), job, tmp_path / "ours")
    assert (tmp_path / "ours/000002.png").read_bytes() == before and len(read_images(tmp_path / "ours", 4)) == 4
