"""Tars: unpacked and packed as the folder that they give, or as the samples of webdataset; or refused in one line."""

import random
import shutil
import tarfile
from types import SimpleNamespace

import pytest
from encoding import encoded, tarred
from PIL import Image

from refusals import mistake
from unstir import UserError, pack


def tar(path, names):
    """A tar of images, each grey as its place, and of other files that hold the class "sky"."""
    drawn = [name.lower().endswith(("png", "jpg")) for name in names]
    images = [encoded(Image.new("L", (4, 4), place)) if drawn[place] else b"sky" for place in range(len(names))]
    return tarred(path, zip(names, images, strict=True))


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
    noted = [(note.count, list(note.examples)) for note in store.notes]
    assert noted == ([(len(further), [f"x.tar: {name}" for name in further])] if further else [])


@pytest.mark.parametrize(
    ("names", "sample", "count"),
    [
        ([f"set1.0/img.{n:04d}.png" for n in range(20)], "'set1.0/img'", 20),
        (["b.png", "a.jpg", "a.png"], "'a'", 2),
        (["a.mask.png", "a.jpg", "a.png"], "'a'", 3),
        (["a.png", "a.PNG"], "'a'", 2),
        (["a.left.png", "a.right.png"], "'a'", 2),
    ],
)
def test_a_sample_of_several_images_is_refused_in_one_line(tmp_path, names, sample, count):
    with pytest.raises(UserError, match=rf"\b{count} images") as refused:
        pack(tar(tmp_path / "x.tar", names), tmp_path / "store")
    assert refused.value.given.startswith(str(tmp_path / "x.tar")) and refused.value.given.endswith(sample)
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_what_is_beside_the_images_of_a_split_that_is_left_out_is_not_told_twice(tmp_path):
    (tmp_path / "in").mkdir()
    tar(tmp_path / "in/train-0.tar", ["a.jpg", "a.cls"])
    tar(tmp_path / "in/test-0.tar", ["b.jpg", "b.seg.png"])
    store = pack(tmp_path / "in", tmp_path / "store", held_out=0)
    assert [note.count for note in store.notes] == [1]


@pytest.fixture
def folder(tmp_path):
    """Images of two classes, in train and test."""
    for number in range(12):
        place = tmp_path / "in" / ("test" if number % 4 == 0 else "train") / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(place / f"{number}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("kind", ["", "gz"])
def test_a_tar_of_class_folders_is_packed_as_the_folder(tmp_path, folder, kind):
    (folder / "train/cat/empty.png").touch()
    with tarfile.open(tmp_path / "x", f"w:{kind}") as made:
        made.add(folder, "photos")
    whole, store = pack(folder, tmp_path / "whole"), pack(tmp_path / "x", tmp_path / "store")
    assert store.content_hash == whole.content_hash and store.classes == ("cat", "dog")
    assert [store.count(split) for split in ("train", "held_out")] == [9, 3]
    assert store.refused == (("photos/train/cat/empty.png", "empty file"),)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "store", "whole", "x"]
    (tmp_path / "x").touch()
    assert pack(tmp_path / "x", tmp_path / "store").manifest == store.manifest
    with tarfile.open(tmp_path / "x", f"w:{kind}") as made:
        made.add(folder / "train", "photos")
    assert mistake(pack, tmp_path / "x", tmp_path / "store").given == tmp_path / "store"


HOSTILE = {
    "a link": ("a.png", tarfile.SYMTYPE, "/etc/passwd"),
    "a link inside": ("a.png", tarfile.SYMTYPE, "b.png"),
    "a hard link": ("a.png", tarfile.LNKTYPE, "../../b.png"),
    "a device": ("a.png", tarfile.CHRTYPE, ""),
    "a pipe": ("a.png", tarfile.FIFOTYPE, ""),
    "absolute": ("/a.png", tarfile.REGTYPE, ""),
    "up": ("x/../../a.png", tarfile.REGTYPE, ""),
    "a folder up": ("../x", tarfile.DIRTYPE, ""),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("kind", ["", "gz"])
def test_a_tar_that_leads_out_of_itself_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, what, kind):
    monkeypatch.setattr(tarfile.TarFile, "extractall", None)
    tar(tmp_path / "plain.tar", ["b.png"])
    with tarfile.open(tmp_path / "x.tar", f"w:{kind}") as made, tarfile.open(tmp_path / "plain.tar") as plain:
        made.addfile(plain.next(), plain.extractfile("b.png"))
        member = tarfile.TarInfo(HOSTILE[what][0])
        member.type, member.linkname = HOSTILE[what][1:]
        made.addfile(member)
    assert mistake(pack, tmp_path / "x.tar", tmp_path / "store").given == f"{tmp_path / 'x.tar'}: {member.name}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.tar", "x.tar"]


def test_a_tar_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    file = tar(tmp_path / "x.tar", ["a.png", "b.png"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"\d+ bytes, 100"):
        pack(file, tmp_path / "other")


@pytest.mark.parametrize("kind", ["", "gz"])
def test_a_damaged_tar_is_one_line_or_gives_its_sound_images(tmp_path, folder, kind):
    with tarfile.open(tmp_path / "x", f"w:{kind}") as made:
        made.add(folder, ".")
    whole, chance = (tmp_path / "x").read_bytes(), random.Random(0)
    for trial in range(8):
        data = bytearray(whole)
        for _ in range(1 + trial % 3):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        (tmp_path / "y").write_bytes(data[: len(data) // 2] if trial % 4 == 3 else data)
        try:
            pack(tmp_path / "y", tmp_path / f"{trial}").verify()
        except UserError as error:
            assert "\n" not in str(error) and "Error" not in str(error)
    assert not list(tmp_path.glob(".*"))
