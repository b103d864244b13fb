"""Real digits spoilt on purpose: each figure moves the way it should, the further the more is spoilt."""

import itertools

import pytest
import torch
from torch.nn.functional import conv2d, pad

from conftest import copied
from unstir import randomness
from unstir.data import Store
from unstir.metrics.classifier import classifier_for
from unstir.metrics.distances import density_coverage, kid, precision_recall
from unstir.metrics.frechet import frechet_of, moments, standard_error

pytestmark = pytest.mark.slow

STRENGTHS = {
    "noise": (0, 8, 16, 32, 64),
    "blur": (0, 0.5, 0.75, 1, 2),
    "dropped classes": (0, 0.1, 0.3, 0.5),
    "duplicates": (0, 0.5, 0.75, 0.9),
}
"""Deviation of the noise in bytes; that of the blur in pixels; the share of classes, and of distinct images, lost."""


def spoilt(kind, strength, images, labels, num=400):
    """``num`` of the images uint8 [N, C, H, W], degraded; each kind changes only one thing."""
    if kind == "dropped classes":
        return images[labels >= round(10 * strength)][:num]
    images = images[:num]
    if kind == "duplicates":
        return images[torch.arange(num) % round((1 - strength) * num)]
    if kind == "noise":
        drawn = randomness.normal(randomness.Key(0, "spoilt", 0, torch.arange(num)), tuple(images.shape[1:]))
        return (images + strength * drawn).round().clamp(0, 255).byte()
    if not strength:
        return images
    taps, blurred = torch.exp(-0.5 * (torch.arange(-6, 7) / strength) ** 2), images.float()
    for kernel in (taps[:, None], taps[None]):
        width, height = (len(side) // 2 for side in (kernel[0], kernel))
        blurred = conv2d(pad(blurred, (width, width, height, height), mode="replicate"), kernel[None, None])
    return (blurred / taps.sum() ** 2).round().clamp(0, 255).byte()


def figures(features, real):
    """Every distance of features [N, F] to real ones [M, F]; neighbourhoods are those of N real images."""
    reference, equal = moments(real), real[: len(features)]
    return {
        "FD": frechet_of(features, reference),
        "error": standard_error(features, reference),
        "KID": kid(features, real, subsets=20, subset_size=len(features))[0],
        **dict(zip(("precision", "recall"), precision_recall(equal, features), strict=True)),
        **dict(zip(("density", "coverage"), density_coverage(equal, features), strict=True)),
    }


@pytest.fixture(scope="module")
def table(classified, tmp_path_factory):
    """{(kind, strength): figures} of 400 digits against 899 others."""
    folder = tmp_path_factory.mktemp("spoilt") / "digits"  # the classifier is kept in it
    store = Store.open(copied(classified, folder, classifier=True))
    classifier, splits = classifier_for(store), ("held_out", "train")
    images, labels = (torch.cat([read(split) for split in splits]) for read in (store.images, store.labels))
    some, others = randomness.permutation(0, "spoilt", 0, len(images)).chunk(2)
    real, kinds = classifier.features(images[others]), [(k, s) for k, all_of in STRENGTHS.items() for s in all_of]
    return {of: figures(classifier.features(spoilt(*of, images[some], labels[some])), real) for of in kinds}


def column(table, kind, name, least=0.0):
    return [found[name] for (k, strength), found in table.items() if k == kind and strength >= least]


def rises(values):
    return all(a < b for a, b in itertools.pairwise(values))


def falls(values):
    return rises(values[::-1])


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize("name", ["FD", "KID"])
def test_distances_rise_with_every_step_of_every_kind(table, kind, name):
    values = column(table, kind, name)
    assert len(values) == len(STRENGTHS[kind])
    assert rises(values)
    assert values[-1] > 5 * abs(values[0])


@pytest.mark.parametrize("kind", STRENGTHS)
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
    assert all(table[kind, 0] == clean for kind in STRENGTHS)
    assert abs(clean["KID"]) < 0.02 and clean["coverage"] > 0.93 and clean["density"] == pytest.approx(1, abs=0.1)
    assert clean["FD"] < 0.5
