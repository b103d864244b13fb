"""Numbers as a reader meets them."""

import math

import pytest

from unstir.insight.wording import brief, count, percent, sentence, times, typed
from unstir.progress import duration
from unstir.significance import with_error

SHOWN = [
    (brief, {0.0312: "0.031", 3.21: "3.2", 99.4: "99", 99.6: "100", 104.2: "104", 2956: "2,956", -3.21: "-3.2"}),
    (lambda number: count(number, "image"), {
        0: "0 images", 1: "1 image", 1280: "1,280 images", 999_999: "999,999 images", 1_200_000: "1.2 million images",
        10**9: "1 billion images",
    }),
    (percent, {
        0.0004: "0.04%", 0.026: "2.6%", 0.93: "93%", 0.994: "99.4%", 0.99968: "99.97%", 0.99999: "99.99%", 1.0: "100%",
        7.74: "774%", 15.2: "15 times", 48_000.0: "more than 1,000 times", math.inf: "more than 1,000 times",
    }),
    (times, {
        0.5: "0.50 times", 1.254: "1.25 times", 9.99: "9.99 times", 48.4: "48 times", 1000.0: "1,000 times",
        1e4: "more than 1,000 times", math.nan: "more than 1,000 times",
    }),
    (duration, {
        3.25: "3.2 seconds", 100: "100 seconds", 163: "2.7 minutes", 4138: "69 minutes", 90_000: "25 hours",
        2e7: "231 days", 0: "less than a second", 1: "1 second", 1.04: "1 second", 1.06: "1.1 seconds",
        29: "29 seconds", 200: "3.3 minutes", 4799: "80 minutes", 5976: "100 minutes", 86_400: "24 hours",
        266_500: "3.1 days", 3e9: "34,722 days",
    }),
    (lambda code: typed(code, "my runs/a"), {
        "train.lr=3e-05": "--train.lr 3e-05", "data.flip=True": "--data.flip", "ema=False": "--no-ema",
        "data.flip=False": "--data.no-flip", "/data/a b=c": "/data/a b=c",
        "unstir report RUN": "unstir report 'my runs/a'",
        'unstir train out=RUN train.length="600 steps"': "unstir train --out 'my runs/a' --train.length \"600 steps\"",
        "train.init='it'\"'\"'s/x'": "--train.init 'it'\"'\"'s/x'",
    }),
    (sentence, {
        "the loss rises": "The loss rises.", "train.warmup=200 steps is much.": "train.warmup=200 steps is much.",
        "x_T holds signal.": "x_T holds signal.",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("write", "shown"), SHOWN)
def test_numbers_and_options_are_written_for_readers(write, shown):
    assert {value: write(value) for value in shown} == shown


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.021234, 0.0003, "0.0212 ± 0.0003"), (0.021234, 0.00014, "0.02123 ± 0.00014"),
        (0.0212, 0.00096, "0.0212 ± 0.0010"), (44.8123, 1.96, "45 ± 2"), (344.8, 12.3, "345 ± 12"),
        (1234.5, 3.2, "1,234 ± 3"), (344.8, 45.0, "340 ± 40"), (-0.001, 0.02, "-0.001 ± 0.02"),
        (3.21, 400.0, "3.2 ± 400"),
        (1.23456, None, "1.235"), (1.23456, 0.0, "1.235"), (1.23456, math.nan, "1.235"),
        (1.2e-9, 3e-10, "1.2e-09 ± 3e-10"),
    ],
)  # fmt: skip
def test_a_value_has_the_digits_its_error_allows(value, error, shown):
    assert with_error(value, error) == shown
    if value > 0:
        assert with_error(value, error, sign=True) == f"+{shown}"
        assert with_error(-value, error) == f"-{shown}"
