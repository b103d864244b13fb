"""Images to be judged that come as NumPy files: which classes a second array says."""

import numpy as np
import pytest

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
