"""A run goes on by its folder alone, and keeps its settings, its data and itself to one process."""

import shlex
from pathlib import Path

import tiny_command
from refusals import refused
from tiny_command import tiny
from unstir.runs.run import Run

unstir, here = tiny_command.unstir, tiny_command.here


def test_a_run_is_continued_by_its_folder_alone(unstir, here):
    refused(unstir("train", "--out", "here", "--train.length", "8 steps"), "cosine", '--train.lr_period "8 steps"')
    status, *_ = unstir("train", "--out", "here", "--train.length", "8 steps", "--train.lr_period", "8 steps")
    assert status == 0 and Run.open("here").config.train.length == "8 steps"
    assert Run.open("here").config.model.channels == 8
    assert [line["step"] for line in Run.open("here").metrics()] == [2, 4, 6, 8]


def test_what_a_recipe_asks_of_a_run_that_goes_on_is_told_from_what_was_typed(unstir, here):
    before, text = Run.open("here").config, (here / "config.toml").read_text()
    Path("longer.toml").write_text(text.replace('\nlength = "6 steps"', '\nlength = "8 steps"'))
    Path("smaller.toml").write_text(text.replace("\nbatch_size = 8", "\nbatch_size = 4"))
    remedy = "leave out the recipe: unstir train --out here goes on with the run's own settings"
    for recipe, said, typed in (
        ("longer.toml", '--train.length "{} steps" goes beyond step 6', ("--train.length", "9 steps")),
        ("smaller.toml", "is 8 in the run, which keeps its settings", ("--train.batch_size", 2)),
    ):
        refused(unstir("train", recipe, "--out", "here"), said.format(8), remedy)
        refused(answer := unstir("train", recipe, "--out", "here", *typed), said.format(9))
        assert remedy not in answer[2]
    both = "leave out the recipe and --train.clip: unstir train --out here goes on"
    typed = ("--train.clip", 7)
    refused(unstir("train", "smaller.toml", "--out", "here", *typed), "--train.clip 7 is 1.0 in the run", both)
    assert unstir("train", "--out", "here")[0] == 0 and Run.open("here").config == before


def test_settings_that_no_step_is_left_to_use_are_named(unstir, here):
    before = Run.open("here").config
    status, _, err = unstir("train", "--out", "here", "--train.length", "3 steps", "--train.lr_period", "3 steps")
    assert status == 0 and "lr_period=3" in err and Run.open("here").config == before
    status, _, err = unstir("train", "--out", "here", "--train.lr_period", "9 steps")
    assert status == 0 and "lr_period=9" in err and Run.open("here").config.train.lr_period == "9 steps"
    status, _, err = unstir("train", "--out", "here", "--train.length", "8 steps")
    assert status == 0 and "no step" not in err
    assert "no step" not in unstir("train", "--out", "here")[2]
    status, _, err = unstir("train", "--out", "here", "--grids.steps", 2, "--checkpoint.keep", 3)
    assert status == 0 and "checkpoint.keep=3" in err
    assert "2 steps, 2 calls" in unstir("sample", "here", "--num", 1)[1]  # so nobody is told that nothing changes


def test_a_mistake_does_not_stay_behind_in_a_run(unstir, here):
    before = Run.open("here").config
    longer = ["--train.length", "8 steps", "--train.lr_period", "8 steps"]
    refused(unstir("train", "--out", "here", *longer, "--train.device", "cuda:7"), "cuda:7")
    refused(unstir("train", "--out", "here", *longer, "--data.store", "typo"), "typo", "no packed store")
    refused(unstir("train", "--out", "here", *longer, "--data.source", "typo"), "data.source", "typo")
    assert Run.open("here").config == before


def test_the_hint_how_to_go_on_is_taken(unstir):
    warm = ["--train.warmup", "5 steps"]  # the warm-up takes nearly the whole run, and the cosine a single step
    short = [word for word in tiny() if word not in ("--train.warmup", "0 steps")]
    assert unstir("train", *short, *warm, "--out", "my run")[0] == 0
    _, out, _ = unstir("train", "--out", "my run")
    hint = shlex.split(out.split("To go on: ")[1].split(";")[0])
    assert "--train.lr_period" in hint
    assert hint[:2] == ["unstir", "train"] and unstir(*hint[1:])[0] == 0
    assert Run.open("my run").metrics()[-1]["step"] == 12


def test_a_folder_that_is_no_run_is_left_alone(unstir, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    refused(unstir("train", "digits", *tiny(), "--out", "mine"), "mine", "not empty", "--out")
    (tmp_path / "file").write_text("x")
    refused(unstir("train", "digits", *tiny(), "--out", "file"), "file")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_other_data_under_the_same_run_is_refused(unstir, here):
    assert unstir("data", "pack", "digits", "--channels", 1, "--held-out", 0.3, "--out", "other")[0] == 0
    refused(unstir("train", "--out", "here", "--data.store", "other"), "is not the data", "--data.store other")


def test_two_trainers_do_not_share_a_run(unstir, here):
    with Run.open("here").lock():
        for longer in ([], ["--train.length", "9 steps", "--train.lr_period", "9 steps"]):
            refused(unstir("train", "--out", "here", *longer), "another process")
        assert Run.open("here").config.train.length == "6 steps"
    assert unstir("train", "--out", "here", *longer)[0] == 0


def test_another_recipe_is_named_as_what_a_run_cannot_go_on_with(unstir, here):
    for shorter in ((), ("--train.length", "1 step", "--train.warmup", "0 steps")):
        err = refused(unstir("train", "digits-guided", *shorter, "--out", "here"), "--out here is a run of digits;")
        assert "config.toml" not in err
