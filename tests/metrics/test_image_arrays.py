"""Images to be judged that come as arrays and NumPy files: which classes a second array says, and what is refused."""

import numpy as np
import pytest
import torch

from unstir import EvaluationRequest, UserError, evaluate_images
from unstir.data import Store
from unstir.metrics.image_files import read


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(6) % 10, None),
        (np.eye(10, dtype=np.float32)[:6], "float32 [6, 10]"),
        (np.eye(10, dtype=np.int64)[:6], "int64 [6, 10]"),
        (np.arange(6, dtype=np.float64), "float64 [6]"),
    ],
)
def test_a_second_array_that_says_no_classes_is_named(tmp_path, digits, labels, said):
    store, heard = Store.open(digits), list[str]()
    images = store.images("train")[:6]
    path = tmp_path / "made.npz"
    np.savez(path, images.permute(0, 2, 3, 1).numpy(), labels)
    read_images, classes = read(path, store, heard.append)
    assert read_images.equal(images)
    if said is None:
        assert classes.tolist() == labels.tolist() and heard == []
    else:
        rule = f"its second array is {said}, not a whole number for each image: judged as of no class"
        assert classes is None and heard == [f"{path}: {rule}"]
        read(path, store, heard.append, by_class=False)  # where --label says the class
        assert len(heard) == 1


@pytest.mark.parametrize(
    ("source", "asked", "labels", "said"),
    [
        (None, {}, None, "NoneType is no source of images"),
        (7, {}, None, "int is no source of images"),
        (np.zeros((20, 1, 8, 8), np.uint8), {}, np.arange(20) / 2, "labels are float64; give the numbers of classes"),
        (np.zeros((20, 1, 8, 8), np.uint8), {}, ["1"] * 20, "labels are no numbers; give the numbers of classes"),
        (np.zeros((20, 1, 8, 8), np.uint8), {}, [], "0 labels given for 20 images; give one for each"),
        (np.zeros((20, 1, 8, 8), np.uint8), {}, [np.nan] * 20, "labels are float32; give the numbers of classes"),
        (np.zeros((20, 1, 8, 8), np.uint8), {}, [10.0] * 20, "labels are outside 0..9"),
        (torch.zeros(20, 1, 8, 8, dtype=torch.uint8), {"split": "test"}, None, "split='test' is unknown; use one of"),
    ],
)
def test_what_python_alone_can_give_is_refused_in_one_line(digits, source, asked, labels, said):
    with pytest.raises(UserError, match=said):
        evaluate_images(source, digits, EvaluationRequest(**asked), labels=labels)
