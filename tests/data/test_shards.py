"""Tars whose samples have several images: which one is packed, what is said of the others, what is refused."""

import io
import tarfile

import pytest
from PIL import Image

from unstir import UserError, pack


def tar(path, names):
    """A tar of images, each grey as its place, and of other files that hold the class "sky"."""
    with tarfile.open(path, "w") as made:
        for place, name in enumerate(names):
            stream = io.BytesIO(b"sky")
            if name.lower().endswith(("png", "jpg")):
                Image.new("L", (4, 4), place).save(stream, "PNG")
            info = tarfile.TarInfo(name)
            info.size = len(stream.getvalue())
            made.addfile(info, io.BytesIO(stream.getvalue()))
    return path


@pytest.mark.parametrize(
    ("names", "packed", "further"),
    [
        (["a.jpg", "a.seg.png", "a.mask.png", "b.jpg"], [0, 3], ["a.seg.png", "a.mask.png"]),
        (["a.depth.png", "a.jpg", "a.cls", "b.depth.png", "b.jpg", "b.cls"], [1, 4], ["a.depth.png", "b.depth.png"]),
        (["a.rgb.png", "a.cls", "v1.0/b.rgb.png", "v1.0/b.cls"], [0, 2], []),
        (["a.jpg", "a.SEG.png"], [0], ["a.SEG.png"]),
        (["a.png", "b.png", "a.png"], [2, 1], []),  # one that was added again, as tar -u does: the last counts
    ],
)
def test_the_image_of_a_sample_is_the_one_without_a_further_point(tmp_path, names, packed, further):
    store = pack(tar(tmp_path / "x.tar", names), tmp_path / "store", held_out=0)
    assert store.images("train")[:, 0, 0, 0].tolist() == packed
    assert store.classes == (("sky",) if any(name.endswith("cls") for name in names) else ())
    noted = [(note.text, note.count, list(note.examples)) for note in store.notes]
    text = "left out: beside the image of its sample, as masks are"
    assert noted == ([(text, len(further), [f"x.tar: {name}" for name in further])] if further else [])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            [f"set1.0/img.{n:04d}.png" for n in range(20)],
            "the sample 'set1.0/img' has 20 images (.0000.png, .0001.png, .0002.png, ...): files that share a name up "
            "to its first point are one sample, of one image; write set1.0/img-0000.png in place of "
            "set1.0/img.0000.png, or unpack the tar and pack the folder",
        ),
        (
            ["b.png", "a.jpg", "a.png"],
            "the sample 'a' has 2 images (.jpg, .png): files that share a name up to its first point are one sample, "
            "of one image; write a-2.png in place of a.png, or",
        ),
        (
            ["a.mask.png", "a.jpg", "a.png"],
            "the sample 'a' has 3 images (.mask.png, .jpg, .png): files that share a name up to its first point are "
            "one sample, of one image; write a-2.png in place of a.png, or",
        ),
        (["a.png", "a.PNG"], "the sample 'a' has 2 images (.png, .png): "),
        (["a.left.png", "a.right.png"], "the sample 'a' has 2 images (.left.png, .right.png): "),
    ],
)
def test_a_sample_of_several_images_is_refused_in_one_line(tmp_path, names, said):
    with pytest.raises(UserError) as error:
        pack(tar(tmp_path / "x.tar", names), tmp_path / "store")
    assert str(error.value).startswith(f"{tmp_path / 'x.tar'}: {said}") and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_what_is_beside_the_images_of_a_split_that_is_left_out_is_not_told_twice(tmp_path):
    (tmp_path / "in").mkdir()
    tar(tmp_path / "in/train-0.tar", ["a.jpg", "a.cls"])
    tar(tmp_path / "in/test-0.tar", ["b.jpg", "b.seg.png"])
    store = pack(tmp_path / "in", tmp_path / "store", held_out=0)
    assert [(note.text, note.count) for note in store.notes] == [
        ("left out: of the split test, which has no labels", 1)
    ]
