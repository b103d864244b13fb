"""Figures of values in units of their own: known differences, missing values, and an evaluation of arrays."""

import numpy as np
import pytest
import torch

from refusals import mistake, refusing
from unstir.data import pack
from unstir.metrics.evaluate import evaluate_images
from unstir.metrics.request import EvaluationRequest
from unstir.metrics.values import lacking, marginals, spread


def values(num, seed, factor=1.0):
    """Smooth images of two channels in other units, a tenth of the values missing."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(num, 2, 3, 1, 1)) * np.cos(np.arange(8)[:, None] * np.arange(3)[:, None, None])
    images = (factor * waves.sum(2) + 0.1 * rng.normal(size=(num, 2, 8, 8))) * np.array([1, 100])[:, None, None] + 7
    return np.where(rng.random(images.shape) < 0.1, np.nan, images).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return pack(values(400, 0), tmp_path_factory.mktemp("values") / "store", held_out=0.4)


def test_spread_and_marginals_are_what_was_changed():
    images = torch.from_numpy(values(200, 0))
    assert spread(images, images) == marginals(images, images) == 0
    assert spread(1.5 * images, images) == pytest.approx(0.5, rel=1e-5)
    deviation = torch.tensor([images[:, c][~images[:, c].isnan()].std() for c in range(2)]).view(-1, 1, 1)
    assert marginals(images + deviation, images) == pytest.approx(1, rel=0.02)


def test_sets_lack_values_where_the_data_do(store):
    (made,) = lacking(store, [torch.ones(50, 2, 8, 8)])
    masks = store.images("train").isnan()
    assert all((mask == masks).flatten(1).all(1).any() for mask in made.isnan()) and made.isnan().any()


def test_new_values_are_at_the_floor_and_spoilt_ones_are_not(store):
    request = EvaluationRequest(memorisation=True)
    good, _ = evaluate_images(torch.from_numpy(values(80, 1)).nan_to_num(7.0), store, request)
    weak, _ = evaluate_images(torch.from_numpy(values(80, 1, factor=0.6)).nan_to_num(7.0), store, request)
    assert {"pca/fd", "patches/swd", "values/marginals", "values/spread"} <= good.figures.keys()
    for key in ("pca/fd", "patches/swd", "values/spread"):
        near, far = good.figures[key], weak.figures[key]
        assert (
            near.value < near.floor + 5 * near.error + 5 * near.floor_error and far.value > near.value + 5 * far.error
        )
        assert near.ceiling > near.value
    assert good.memorisation is not None and good.protocol["rounding"] == "none"
    assert mistake(evaluate_images, torch.zeros(80, 2, 8, 8, dtype=torch.uint8), store, request).key == "images"


def test_inception_is_refused_before_any_image_is_read(store, monkeypatch):
    monkeypatch.setattr("unstir.metrics.evaluate.installed", lambda: None)
    for key, given in (("fid", True), ("fid_weights", "net.pth")):
        with refusing(key, given):
            evaluate_images("no such folder", store, EvaluationRequest(**{key: given}))
