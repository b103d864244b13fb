"""What sentences take from the log: spans of images, which figure in bits, ratios, and values that are no numbers."""

import math

import pytest

from runs import MOMENTS, analyse, by_name, facts, held_out, metrics

NO_NUMBERS = [None, "0.1", True, math.nan, math.inf, -math.inf, 1e300, [1], {}, 10**400]


def repr_of(value):
    return repr(value)[:10]


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
