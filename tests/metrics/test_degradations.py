"""Real digits spoilt on purpose: each figure moves the way it should, the further the more is spoilt."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch

from conftest import copied
from unstir.data import Store

SCRIPT = Path(__file__).parents[2] / "benchmarks/degradations.py"


def load_script():
    spec = importlib.util.spec_from_file_location("degradations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def table(classified, tmp_path_factory):
    """{(kind, strength): figures} of 400 digits against 899 others, by the benchmark's own code."""
    folder = tmp_path_factory.mktemp("spoilt") / "digits"  # the classifier is kept in it
    copied(classified, folder, classifier=True)
    return {(kind, strength): found for kind, strength, found in script.measured(Store.open(folder), 400, 10_000)}


def column(table, kind, name, least=0.0):
    return [found[name] for (k, strength), found in table.items() if k == kind and strength >= least]


def rises(values):
    return all(a < b for a, b in itertools.pairwise(values))


def falls(values):
    return rises(values[::-1])


@pytest.mark.parametrize("kind", script.STRENGTHS)
@pytest.mark.parametrize("name", ["FD", "KID"])
def test_distances_rise_with_every_step_of_every_kind(table, kind, name):
    values = column(table, kind, name)
    assert len(values) == len(script.STRENGTHS[kind])
    assert rises(values)
    assert values[-1] > 5 * abs(values[0])


@pytest.mark.parametrize("kind", script.STRENGTHS)
def test_the_strongest_is_far_outside_the_standard_error(table, kind):
    distances, errors = column(table, kind, "FD"), column(table, kind, "error")
    assert distances[-1] - distances[0] > 3 * (errors[-1] ** 2 + errors[0] ** 2) ** 0.5
    assert all(0 < error < distance for error, distance in zip(errors, distances, strict=True))


@pytest.mark.parametrize("kind", ["noise", "blur"])
def test_what_is_spoilt_is_less_true_to_life(table, kind):
    for name in ("precision", "density"):
        least = 8 if kind == "noise" else 0  # a byte's noise of 8 is hardly seen
        assert falls(column(table, kind, name, least)), name
        values = column(table, kind, name)
        assert values[-1] < 0.6 * values[0], name


def test_what_is_missing_is_not_recalled(table):
    for kind, name in (("dropped classes", "recall"), ("dropped classes", "coverage"), ("duplicates", "coverage")):
        values = column(table, kind, name)
        assert falls(values), (kind, name)
        assert values[-1] < 0.6 * values[0], (kind, name)
    recall = column(table, "duplicates", "recall")
    assert recall[0] > recall[1] + 0.1 > 0.1 and recall[2:] == [0, 0]  # four alike leave balls of no size


def test_fidelity_and_diversity_are_told_apart(table):
    """Of half the classes, each image is as true to life as before; of noise, none is a copy."""
    for name in ("precision", "density"):
        values = column(table, "dropped classes", name)
        assert min(values) > values[0] - 0.05, name
    clean, noisy = table["noise", 0], table["noise", 32]
    assert clean["precision"] - noisy["precision"] > 2 * abs(clean["recall"] - noisy["recall"])


def test_images_as_they_are_are_at_the_floor(table):
    clean = table["noise", 0]
    assert all(table[kind, 0] == clean for kind in script.STRENGTHS)
    assert abs(clean["KID"]) < 0.02 and clean["coverage"] > 0.93 and clean["density"] == pytest.approx(1, abs=0.1)
    assert clean["FD"] < 0.5


def test_each_kind_changes_what_it_says(digits):
    store = Store.open(digits)
    images, labels = store.images("train")[:300], store.labels("train")[:300]
    spoil = lambda kind, strength: script.spoilt(kind, strength, images, labels, 100, 10)
    noise = (spoil("noise", 20).float() - images[:100])[(images[:100] > 80) & (images[:100] < 170)]
    assert noise.std().item() == pytest.approx(20, rel=0.1) and abs(noise.mean()) < 2
    blurred = spoil("blur", 1)
    assert blurred.float().mean().item() == pytest.approx(images[:100].float().mean().item(), rel=0.05)
    assert blurred.float().std() < 0.8 * images[:100].float().std()
    point = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    point[0, 0, 4, 4] = 255
    spread = script.blurred(point, 1)[0, 0].float()
    assert torch.equal(spread, spread.T) and torch.equal(spread, spread.flip(0))
    assert spread[4, 5] / spread[4, 4] == pytest.approx(0.607, abs=0.02)  # exp(-1/2)
    assert torch.equal(spoil("dropped classes", 0.3), images[labels >= 3][:100])
    assert len(spoil("duplicates", 0.75).flatten(1).unique(dim=0)) == 25
    with pytest.raises(SystemExit, match="lower --num"):
        script.spoilt("dropped classes", 0.9, images, labels, 100, 10)
