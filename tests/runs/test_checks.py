"""Which values a file may hold, at the edge of each kind."""

import math

import pytest

from refusals import mistake
from unstir.runs import files
from unstir.runs.files import MOST

VALUES = {
    "zero": 0, "most": MOST - 1, "more": MOST, "negative": -1, "least": 1 - MOST, "less": -MOST, "true": True,
    "fraction": 0.5, "whole float": 2.0, "huge": 1e300, "nan": math.nan, "inf": math.inf, "none": None, "text": "1",
}  # fmt: skip
ARE = {
    "is_count": {"zero", "most"},
    "is_number": {"zero", "most", "negative", "least", "fraction", "whole float", "huge"},
    "is_figure": {"zero", "most", "negative", "least", "fraction", "whole float", "huge", "nan", "inf", "none"},
    "is_text": {"text"},
}


@pytest.mark.parametrize("kind", ARE)
def test_a_value_is_of_the_kinds_that_are_written_down(kind):
    assert MOST == 2**53
    assert {name for name, value in VALUES.items() if getattr(files, kind)(value)} == ARE[kind]


def test_figures_are_a_list_without_none_or_none():
    assert files.is_figures(None) and files.is_figures([]) and files.is_figures([1, math.nan, 0.5])
    assert not any(map(files.is_figures, ([None], [1, "2"], (1.0,), 1.0)))


def test_a_format_of_the_future_is_upgraded_to_and_any_other_is_trained_anew(tmp_path):
    files.check_format(tmp_path, 3, 3)
    for number, is_newer in ((4, True), (2, False), (-1, False), ("4", False)):
        refused = mistake(files.check_format, tmp_path, number, 3)
        assert refused.given == tmp_path and refused.remedy.startswith("upgrade") == is_newer


def test_what_may_be_missing_is_of_its_kind_where_it_is_there():
    needed, optional = {"a": files.is_count}, {"b": files.is_text}
    files.check({"a": 1}, needed, optional)
    files.check({"a": 1, "b": "x", "c": None}, needed, optional)
    for values, words in (({"b": "x"}, "it has no a"), ({"a": -1}, "its a is -1"), ({"a": 1, "b": 2}, "its b is 2")):
        with pytest.raises(ValueError, match=words):
            files.check(values, needed, optional)
    with pytest.raises(ValueError, match="no table"):
        files.check([1], {})
