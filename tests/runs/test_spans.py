"""A length with its unit as optimiser steps."""

import pytest

from refusals import mistake, refusing
from unstir.runs.config import steps_in
from unstir.runs.named import run_and_step
from unstir.runs.run import check_free
from unstir.runs.sections import TrainConfig


@pytest.mark.parametrize(
    ("span", "steps"),
    [
        ("1 step", 1),
        ("20 epochs", 460),
        ("65 images", 2),  # rounded up
        ("640 images", 10),
        ("0 images", 0),
    ],
)
def test_a_span_is_so_many_steps(span, steps):
    assert steps_in(span, steps_per_epoch=23, batch_size=64) == steps


def test_a_run_of_so_many_images_sees_them_and_no_more_than_a_batch_more(make_run):
    for images in (80, 81, 200):
        run, _ = make_run(f"of-{images}", train__length=f"{images} images", train__warmup="8 images")
        assert images <= run.length * run.config.train.batch_size < images + run.config.train.batch_size
        assert run.steps_in(run.config.train.warmup) == 1


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1step", "1 step"),
        (" 2 step ", "2 steps"),
        ("1 epochs", "1 epoch"),
        ("0 epochs", "0 steps"),
        ("9" * 12 + " images", "9" * 12 + " images"),
        ("0" * 20 + "5 images", "5 images"),
    ],
)
def test_a_span_has_one_form(text, span):
    assert TrainConfig(warmup=text).warmup == span


def test_no_span_is_beyond_twelve_digits_and_no_training_is_of_nothing():
    assert mistake(TrainConfig, warmup="1" + "0" * 12 + " images").key == "warmup"
    assert mistake(TrainConfig, length="0 epochs").key == "length"


def test_a_new_run_may_have_a_folder_in_which_nothing_is_but_what_its_birth_left(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "absent")
    for name in ("data.json", ".lock", ".a.partial"):
        (tmp_path / name).touch()
    check_free(tmp_path)
    (tmp_path / "photo.png").touch()
    for taken in (tmp_path, tmp_path / "photo.png"):
        with refusing("out", taken):
            check_free(taken)


def test_a_step_is_named_behind_a_run_unless_that_is_a_path(tmp_path):
    assert run_and_step("runs/a@5") == ("runs/a", 5) and run_and_step("a@b@12") == ("a@b", 12)
    assert run_and_step("runs/a") == ("runs/a", None) and run_and_step("a@last") == ("a@last", None)
    (tmp_path / "a@5").mkdir()
    assert run_and_step(f"{tmp_path}/a@5") == (f"{tmp_path}/a@5", None)
