"""A length with its unit as optimiser steps."""

import pytest

from unstir.runs.config import steps_in


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
