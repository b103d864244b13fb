"""Classes are found by name or number, and nothing is guessed."""

import pytest

from unstir.data.store import class_number
from unstir.errors import UserError

WOODS = ["forest", "Gänse", "sea ice", "日本"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("forest", 0), ("0", 0), ("03", 3), ("Gänse", 1), ("Ga\u0308nse", 1), (" sea ice ", 2), ("日本", 3)],
)
def test_name_or_number(text, number):
    assert class_number(WOODS, text) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forrest", "did you mean 'forest'?"),
        ("FOREST", "did you mean 'forest'?"),
        ("4", r"'4' is no class of the data; give a number in 0\.\.3, or one of 'forest', 'Gänse', 'sea ice', '日本'"),
        ("-1", "give a number"),
        ("1.0", "give a number"),
        ("", "give a number"),
        ("²", "give a number"),
        ("9" * 5000, r"'9{57}\.\.\.' is no class"),
        ("name:1", "give a number"),
        ("number:9", "give a number"),
    ],
)
def test_what_is_no_class_is_refused_with_what_there_is(text, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        class_number(WOODS, text)


def test_classes_named_by_digits_are_found_where_name_and_number_agree_or_one_alone_fits():
    assert [class_number("0123456789", digit) for digit in "0123456789"] == list(range(10))
    years = ["1999", "2000"]
    assert class_number(years, "2000") == 1
    assert class_number(years, "1") == 1


def test_name_that_is_the_number_of_another_class_is_refused_and_can_be_said_plainly():
    ratings = ["1", "2", "3"]
    with pytest.raises(UserError, match="'1' is the name of class 0 and the number of class '2'; write name:1 or numb"):
        class_number(ratings, "1")
    assert class_number(ratings, "name:1") == 0
    assert class_number(ratings, "number:1") == 1
    assert class_number(ratings, "0") == 0
    assert class_number(ratings, "3") == 2


def test_data_without_classes_is_said():
    with pytest.raises(UserError, match="has no classes; leave the label out"):
        class_number([], "0")


def test_many_classes_are_not_all_listed():
    with pytest.raises(UserError, match=r"'n19', \.\.\.$"):
        class_number([f"n{i}" for i in range(1000)], "zebra")


def test_names_that_differ_in_how_accents_are_kept_alone_are_told_apart():
    twins = ["Ga\u0308nse", "G\xe4nse"]
    assert [class_number(twins, name) for name in twins] == [0, 1]


def test_twenty_classes_are_all_listed_and_sixty_letters_are_all_shown():
    with pytest.raises(UserError, match=r"in 0\.\.19, or one of .*'n19'$"):
        class_number([f"n{i}" for i in range(20)], "zebra")
    with pytest.raises(UserError, match=r"'n19', \.\.\.$"):
        class_number([f"n{i}" for i in range(21)], "zebra")
    for length, shown in ((60, "z" * 60), (61, "z" * 57 + "...")):
        with pytest.raises(UserError, match=f"^label '{shown}' is no class"):
            class_number(["a"], "z" * length)
