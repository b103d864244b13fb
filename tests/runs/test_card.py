"""The labels of a run, known ones and those of each image; and examples of its data, one of each class first."""

import dataclasses
from fractions import Fraction
from math import sqrt

import pytest
import torch

from refusals import mistake, refusing
from unstir.data import Store
from unstir.errors import UserError
from unstir.pixels import Scale
from unstir.runs import card
from unstir.runs.card import GOLDEN, MOST_SHARES, DataCard, Labels
from unstir.runs.files import encode
from unstir.runs.run import Run
from unstir.serve.examples import examples

LABELS = Labels(3, ("a", "b", "c"))


@pytest.mark.parametrize("shares", [[5, 0, 2, 1], [MOST_SHARES - 40, 3, 20, 16]])
def test_by_shares_an_image_has_the_class_at_its_fraction_however_many_there_are(shares):
    golden = Fraction(GOLDEN, 2**32)
    assert round(2**33 / (1 + sqrt(5))) == GOLDEN
    indices = torch.cat([torch.arange(200), torch.arange(10**8 - 200, 10**8)])
    edges = [Fraction(sum(shares[: k + 1]), sum(shares)) for k in range(4)]
    wanted = [sum(edge <= (i + Fraction(1, 2)) * golden % 1 for edge in edges) for i in indices.tolist()]
    assert Labels(4, tuple("abcd")).of(indices, shares=shares).tolist() == wanted


def test_shares_are_one_a_class_with_a_sum_that_is_computed_exactly():
    assert MOST_SHARES * 2**33 == 2**63
    for shares in ((1, 0, 0), (0, 0, 7), (MOST_SHARES - 2, 1, 0), ()):
        LABELS.check(None, shares)
    for shares in ((0, 0, 0), (1, 1), (1, 1, 1, 1), (2, -1, 1), (MOST_SHARES - 1, 1, 0)):
        with refusing("shares", shares):
            LABELS.check(None, shares)


def test_a_label_is_the_number_of_a_class():
    LABELS.check(0)
    LABELS.check(2)
    for label in (-1, 3):
        with refusing("label", label):
            LABELS.check(label)
    assert LABELS.numbers(["0", "2", "b"]) == (0, 2, 1) and Labels().numbers([]) == ()
    for text in ("3", "-1", "999999999"):
        with refusing("label", int(text)):
            LABELS.numbers([text])
    with pytest.raises(UserError, match="^label='1234567890'"):
        LABELS.numbers(["1234567890"])


def test_an_image_that_is_given_has_the_null_label_where_there_is_one():
    assert Labels(3, ("a", "b", "c"), has_null=True).or_null(None) == 3
    assert Labels(3, ("a", "b", "c"), has_null=True).or_null(0) == LABELS.or_null(0) == 0
    assert Labels().or_null(None) is None
    refused = mistake(LABELS.or_null, None, "labels")
    assert (refused.key, refused.given) == ("labels", None)


def test_shares_go_with_classes_and_without_a_label():
    for labels, given, remedy in (
        (Labels(), (None, (1, 1)), {"shares": None}),
        (LABELS, (2, (1, 1, 1)), ({"label": None}, {"shares": None})),
    ):
        assert mistake(labels.check, *given).remedy == remedy


def test_without_shares_each_class_is_drawn_in_turn_or_one_for_all():
    assert LABELS.of(torch.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0] and Labels().of(torch.arange(7)) is None
    assert LABELS.of(torch.arange(2), label=2).tolist() == [2, 2]
    assert (LABELS.number("b"), LABELS.number(None)) == (1, None)
    with refusing("label", 3):
        LABELS.or_null(3)


CONDITION = {"shape": [2], "offset": [0, 0], "scale": [1], "sha256": ""}


@pytest.mark.parametrize("damage", [
    *[{field.name: None} for field in dataclasses.fields(DataCard)], {"shape": {}}, {"scale": {"low": [0]}},
    {"scale": {"low": 0, "high": 1}}, {"scale": {"low": ["a"], "high": [1]}}, {"scale": {"low": [0], "high": []}},
    {"counts": {"train": 1.5}}, {"counts": []}, {"condition": {"shape": [1]}}, {"condition": CONDITION},
])  # fmt: skip
def test_a_damaged_data_json_with_a_right_checksum_is_refused(tmp_path, damage):
    whole = DataCard((1, 8, 8), ("a",), {"train": 1, "held_out": 0}, "x", scale=Scale((0.0,), (1.0,)))
    card.save(tmp_path, whole)
    assert card.load(tmp_path) == whole
    values = {key: value for key, value in (whole.plain() | damage).items() if value is not None or key not in damage}
    (tmp_path / card.NAME).write_text(encode({"unstir_data": card.FORMAT, **values}))
    with pytest.raises(UserError) as refused:
        card.load(tmp_path)
    assert refused.value.given == tmp_path / card.NAME


def test_examples_are_held_out_and_begin_with_one_of_each_class(digits, make_run):
    store, shipped = Store.open(digits), examples(Run.open("shipped:digits"), 12)
    images, labels = store.scale.to_model(store.images("held_out")), store.labels("held_out")
    x_0, told, present = shipped
    first = [labels.tolist().index(label) for label in range(10)]
    rest = [place for place in range(20) if place not in first][:2]
    assert torch.equal(x_0, images[first + rest]) and torch.equal(told, labels[first + rest]) and present is None
    run, _ = make_run(train__length="1 step")
    assert torch.equal(examples(run, 12)[0], x_0) and examples(run, 12)[1] is None
    run, _ = make_run("by class", train__length="1 step", model__num_classes=10)
    assert torch.equal(examples(run, 12)[1], told)
