"""Numbers as a reader meets them."""

import math

import pytest

from unstir.insight.wording import brief, count, listed, operations, passes, percent, with_error
from unstir.progress import duration


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.021234, 0.0003, "0.0212 +- 0.0003"),
        (0.021234, 0.00014, "0.02123 +- 0.00014"),
        (0.0212, 0.00096, "0.0212 +- 0.0010"),
        (44.8123, 1.96, "45 +- 2"),
        (344.8, 12.3, "345 +- 12"),
        (1234.5, 3.2, "1,234 +- 3"),
        (344.8, 45.0, "340 +- 40"),
        (-0.001, 0.02, "0.00 +- 0.02"),
        (1.23456, None, "1.235"),
        (1.23456, 0.0, "1.235"),
        (1.23456, math.nan, "1.235"),
        (1.2e-9, 3e-10, "1.2e-09 +- 3e-10"),
    ],
)
def test_a_value_has_the_digits_its_error_allows(value, error, shown):
    assert with_error(value, error) == shown
    if value > 0:
        assert with_error(value, error, sign=True) == f"+{shown}"
        assert with_error(-value, error) == f"-{shown}"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0312, "0.031"), (3.21, "3.2"), (99.4, "99"), (99.6, "100"), (104.2, "104"), (2956, "2,956")]
)
def test_a_number_of_two_digits_or_all_its_whole_ones_has_no_exponent(value, shown):
    assert brief(value) == shown and brief(-value) == f"-{shown}"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 images"),
        (1, "1 image"),
        (1280, "1,280 images"),
        (999_999, "999,999 images"),
        (1_200_000, "1.2 million images"),
        (10**9, "1 billion images"),
    ],
)
def test_counts_have_their_plural(number, shown):
    assert count(number, "image") == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0004, "0.04%"),
        (0.026, "2.6%"),
        (0.93, "93%"),
        (0.994, "99.4%"),
        (0.99968, "99.97%"),
        (0.99999, "99.99%"),
        (1.0, "100%"),
        (7.74, "774%"),
        (15.2, "15 times"),
        (48_000.0, "more than 1,000 times"),
        (38_237_685.94, "more than 1,000 times"),
        (math.inf, "more than 1,000 times"),
    ],
)
def test_percentages_are_never_rounded_to_all_or_nothing(share, shown):
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (3.25, "3.2 seconds"),
        (100, "100 seconds"),
        (163, "2.7 minutes"),
        (4138, "69 minutes"),
        (90_000, "25 hours"),
        (2e7, "231 days"),
        (0, "less than a second"),
        (1, "1 second"),
        (1.04, "1 second"),
        (1.06, "1.1 seconds"),
        (29, "29 seconds"),
        (200, "3.3 minutes"),
        (4799, "80 minutes"),
        (5976, "100 minutes"),
        (86_400, "24 hours"),
        (3 * 86_400 + 7300, "3.1 days"),
        (3e9, "34,722 days"),
    ],
)
def test_times_have_the_unit_that_suits_them(seconds, shown):
    assert duration(seconds) == shown


def test_operations_and_lists():
    assert operations(1.38e13) == "13.8 TFLOP"
    assert operations(2.4e7) == "24 MFLOP"
    assert operations(4.4e17) == "440 PFLOP"
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"], "or")] == ["a", "a and b", "a, b or c"]


def test_how_often_an_image_was_seen():
    assert passes(192_000, 1498) == "128 times each image"
    assert passes(3008, 1498) == "2.0 times each image" and passes(0, 0) == "0.0 times each image"
