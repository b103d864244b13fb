"""Classes are found by name or number, and nothing is guessed."""

import pytest

from refusals import mistake, refusing
from unstir.data.classes import class_number
from unstir.errors import UserError

WOODS = ["forest", "Gänse", "sea ice", "日本"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("forest", 0), ("0", 0), ("03", 3), ("Gänse", 1), ("Ga\u0308nse", 1), (" sea ice ", 2), ("日本", 3)],
)
def test_name_or_number(text, number):
    assert class_number(WOODS, text) == number


@pytest.mark.parametrize(
    "text",
    ["forrest", "FOREST", "4", "-1", "1.0", "", "²", "9" * 5000, "name:1", "number:9"],
    ids=lambda text: text[:9],
)
def test_what_is_no_class_is_refused_with_what_there_is(text):
    refused = mistake(class_number, WOODS, text)
    assert (refused.key, refused.given) == ("label", text) and len(str(refused)) < 200
    assert refused.remedy.endswith("forest?" if text[:1] in ("f", "F") else ", ".join(WOODS))


def test_a_word_of_a_longer_name_leads_to_that_name():
    with refusing(remedy="did you mean big dogs, Small_Dogs?"):
        class_number(["big dogs", "dot", "Small_Dogs"], "dog")


def test_classes_named_by_digits_are_found_where_name_and_number_agree_or_one_alone_fits():
    assert [class_number("0123456789", digit) for digit in "0123456789"] == list(range(10))
    years = ["1999", "2000"]
    assert class_number(years, "2000") == 1
    assert class_number(years, "1") == 1


def test_name_that_is_the_number_of_another_class_is_refused_and_can_be_said_plainly():
    ratings = ["1", "2", "3"]
    with pytest.raises(UserError) as refused:
        class_number(ratings, "1", "labels")
    assert [class_number(ratings, remedy["labels"]) for remedy in refused.value.remedy] == [0, 1]
    assert class_number(ratings, "0") == 0
    assert class_number(ratings, "3") == 2


def test_data_without_classes_is_said():
    assert mistake(class_number, [], "0").remedy == {"label": None}


def test_many_classes_are_not_all_listed():
    assert mistake(class_number, [f"n{i}" for i in range(1000)], "zebra").remedy.endswith("n3, ...")


def test_names_that_differ_in_how_accents_are_kept_alone_are_told_apart():
    twins = ["Ga\u0308nse", "G\xe4nse"]
    assert [class_number(twins, name) for name in twins] == [0, 1]
