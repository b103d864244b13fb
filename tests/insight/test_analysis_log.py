"""What sentences take from the log: spans of images, which figure in bits, ratios, and values that are no numbers."""

import dataclasses
import math
import re

import pytest
from test_analysis_fit import bound

import runs
from runs import MOMENTS, by_name, evaluation, facts, held_out, metrics
from unstir.insight import tables
from unstir.insight.analysis import analyse

SPAN = re.compile(
    r"(?<!step )(?<![\d,])([\d,]+)(?:\.\d+)? (?:training |held-out )?images?\b(?! per second)|from ([\d,]+) to "
)
NO_NUMBERS = [None, "0.1", True, math.nan, math.inf, -math.inf, 1e300, [1], {}, 10**400]


def repr_of(value):
    return repr(value)[:10]


def of_batch(batch, known):
    """The run with ``batch`` images a step in its logs, whatever its settings say now."""
    relog = lambda lines: tuple({**line, "images": line["step"] * batch} for line in lines)
    by_step = tuple(dataclasses.replace(each, images=each.step * batch) for each in known.by_step)
    cost = dataclasses.replace(known.cost, images=known.step * batch)
    return dataclasses.replace(
        known, held_out=relog(known.held_out), metrics=relog(known.metrics), by_step=by_step, cost=cost
    )


@pytest.mark.parametrize("batch", [64, 60, 37])
@pytest.mark.parametrize("name", ["good", "over_fitted", "diverged", "too_short"])
def test_spans_of_images_are_those_of_the_log(name, batch):
    known = of_batch(batch, getattr(runs, name)())
    logged = {line["images"] for line in (*known.held_out, *known.metrics)} | {each.images for each in known.by_step}
    sets = {evaluation().protocol["num"], 299, 900, 32}  # images of a set, held out, and those of an estimate in bits
    found = []
    for each in analyse(known):
        numbers = [int((one or other).replace(",", "")) for one, other in SPAN.findall(each.text)]
        found += [number for number in numbers if number not in sets]
        assert set(numbers) <= logged | sets, each.text
    assert len(found) >= 4


def test_what_was_seen_is_said_in_one_way():
    """The same number of images in the cost and the last measurement; no epochs, which leave out partial batches."""
    for known in (runs.good(), runs.too_short()):
        texts = [each.text for each in analyse(known)]
        assert not any(re.search(r"\d epochs?\b", text) for text in texts if "--train.length" not in text)
        assert sum("(128 times each image)" in text for text in texts) == 1


def test_which_figure_in_bits_it_is_stands_in_the_sentence():
    estimate = by_name(facts(held_out=held_out()))["bits"].text
    assert "by an estimate of the bound from 32 images or more of each split" in estimate
    assert "likelihood" not in estimate
    both = {"held_out": bound(4.9), "train": {**bound(4.5), "num": 1000}}
    text = by_name(facts(held_out=held_out(), likelihoods=both))["bits"].text
    assert "by the bound over 299 images or more of each split (`unstir likelihood`, all 1000 terms)" in text
    alone = by_name(facts(held_out=held_out(), likelihoods={"held_out": bound(4.9)}))["bits"].text
    assert "estimate of the bound" in alone
    assert "(`unstir likelihood`, all 1000 terms, over 299 held-out images: 4.90 +- 0.02)" in alone
    few = bound(4.9) | {"protocol": bound(4.9)["protocol"] | {"calls": 10}}
    known = facts(held_out=held_out(), likelihoods={"held_out": few})
    assert "(`unstir likelihood`, estimated from 10 of 1000 terms, over 299 held-out" in by_name(known)["bits"].text
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
    assert by_name(facts(metrics=lines, held_out=held_out())).keys() == by_name(facts(held_out=held_out())).keys()
    assert analyse(facts(metrics=tuple({**line, key: value} for line in lines), held_out=held_out()))


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
