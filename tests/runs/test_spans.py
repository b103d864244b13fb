"""A length with its unit as optimiser steps."""

import pytest

from unstir.runs.config import steps_in
from unstir.runs.sections import TrainConfig


@pytest.mark.parametrize(
    ("span", "steps"),
    [
        ("1 step", 1),
        ("5000 steps", 5000),
        ("1 epoch", 23),
        ("20 epochs", 460),
        ("1 image", 1),
        ("64 images", 1),
        ("65 images", 2),  # rounded up
        ("640 images", 10),
        ("1000000 images", 15_625),
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
    with pytest.raises(ValueError, match=r"is beyond 10\^12"):
        TrainConfig(warmup="1" + "0" * 12 + " images")
    with pytest.raises(ValueError, match="must be more than nothing"):
        TrainConfig(length="0 epochs")
