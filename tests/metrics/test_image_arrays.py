"""Images to be judged that come as arrays and NumPy files: which classes a second array says, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from refusals import refusing
from unstir import EvaluationRequest, evaluate_images
from unstir.data import Store
from unstir.metrics.images import read


@pytest.mark.parametrize("labels", [np.arange(6) % 10, np.arange(6) + 5])
def test_a_second_array_is_the_classes_by_the_stores_numbers(tmp_path, digits, logged, labels):
    store = Store.open(digits)
    named = replace(store, manifest={**store.manifest, "classes": [f"digit {number}" for number in range(10)]})
    images = store.images("train")[:6]
    path = tmp_path / "made.npz"
    np.savez(path, images.permute(0, 2, 3, 1).numpy(), labels)
    for each in (store, named):
        found, classes = read(path, each)
        assert found.equal(images)
        assert (classes is None) if labels.max() > 9 else (classes.tolist() == labels.tolist())
    said = [f"{path} has classes that {store.path} has not (10): its images are judged as of no class"] * 2
    assert logged == (said if labels.max() > 9 else [])
    logged.clear()
    read(path, store, by_class=False)  # where --label says the class
    assert logged == []


ZEROS = np.zeros((20, 1, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("source", "asked", "labels", "key"),
    [
        (None, {}, None, "images"), (7, {}, None, "images"), (ZEROS, {"split": "test"}, None, "split"),
        *((ZEROS, {}, labels, "labels") for labels in (
            np.arange(20) / 2, ["1"] * 20, [], [np.nan] * 20, [10.0] * 20, [3] * 19, [3] * 21,
        )),
    ],
)  # fmt: skip
def test_what_python_alone_can_give_is_refused(digits, source, asked, labels, key):
    with refusing(key):
        evaluate_images(source, digits, EvaluationRequest(**asked), labels=labels)
