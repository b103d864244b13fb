"""What sentences take from the log: spans of images, which figure in bits, ratios, and values that are no numbers."""

import math

import pytest
from test_analysis_fit import bound

from runs import MOMENTS, analyse, by_name, facts, held_out, metrics
from unstir.insight import tables

NO_NUMBERS = [None, "0.1", True, math.nan, math.inf, -math.inf, 1e300, [1], {}, 10**400]


def repr_of(value):
    return repr(value)[:10]


def test_which_figure_in_bits_it_is_stands_in_the_sentence():
    estimate = by_name(facts(held_out=held_out()))["bits"].text
    assert "by an estimate of the bound from 32 images or more of each split" in estimate
    both = {"held_out": bound(4.9), "train": {**bound(4.5), "num": 1000}}
    text = by_name(facts(held_out=held_out(), likelihoods=both))["bits"].text
    assert "by the bound over 299 images or more of each split (`unstir likelihood`, all 1000 terms)" in text
    few = bound(4.9) | {"protocol": bound(4.9)["protocol"] | {"calls": 10}}
    known = facts(held_out=held_out(), likelihoods={"held_out": few})
    assert "the bound, estimated from 10 of 1000 terms" in [note for *_, note in tables.cards(known)]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"variance": "small"}, "all 1000 terms, small variance"),
        ({"clip": False, "ema": False}, "all 1000 terms, estimates not clamped, raw weights"),
        ({"ema": 0.05}, "all 1000 terms, averaged (width 0.05) weights"),
    ],
)
def test_a_bound_that_is_none_of_the_usual_ones_says_so(how, words):
    of = {split: bound(4.9, split=split, **how) for split in ("held_out", "train")}
    known = facts(held_out=held_out(), likelihoods=of)
    assert f"(`unstir likelihood`, {words})" in by_name(known)["bits"].text
    assert f"the bound, {words}" in [note for *_, note in tables.cards(known)]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr_of)
@pytest.mark.parametrize("key", ["loss", "grad_norm", "clipped", "skipped", "images_per_second", "lr"])
def test_values_that_are_no_numbers_are_passed_over(key, value):
    lines = tuple({**line, key: value} if 10 < k < 20 else line for k, line in enumerate(metrics()))
    assert by_name(facts(lines=lines, held_out=held_out())).keys() == by_name(facts(held_out=held_out())).keys()
    assert analyse(facts(lines=tuple({**line, key: value} for line in lines), held_out=held_out()))


@pytest.mark.parametrize("key", ["of_held_out", "of_train"])
def test_a_line_with_a_value_that_is_no_number_is_left_out(key):
    lines = held_out()
    for value in ("0.1", None, True, [0.1], 10**400):
        broken = {**lines[-1], key: [*lines[-1][key][1:], value]}
        known = facts(held_out=(*lines[:-1], broken))
        assert [each.step for each in known.measured] == list(MOMENTS[:-1])


@pytest.mark.parametrize(
    ("init", "said"), [("", "in the untrained network"), ("/runs/a@3", "with the weights of /runs/a@3")]
)
def test_the_loss_before_the_first_step_is_that_of_the_weights_that_it_began_with(init, said):
    assert f" {said} to " in by_name(facts(held_out=held_out(), config={"train__init": init}))["fall"].text
