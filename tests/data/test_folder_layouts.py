"""Layouts that are not quite class folders: what becomes of images beside them."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from unstir.data import pack
from unstir.errors import UserError


def draw(folder, names):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 5 * i, np.uint8)).save(path)


def zipped(folder, archive):
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(folder.rglob("*.png")):
            out.write(path, path.relative_to(folder.parent))
    return archive


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_few_images_beside_class_folders_are_refused_and_the_classes_kept(tmp_path, as_zip):
    draw(tmp_path / "photos", [f"{kind}/{i}.png" for kind in ("cats", "dogs") for i in range(6)] + ["loose.png"])
    source = zipped(tmp_path / "photos", tmp_path / "photos.zip") if as_zip else tmp_path / "photos"
    store = pack(source, tmp_path / "store", channels=1)
    assert store.classes == ("cats", "dogs")
    assert [reason for _, reason in store.refused] == ["outside the class folders, so without a label"]


def test_a_stray_folder_beside_many_images_makes_no_classes(tmp_path):
    draw(tmp_path / "photos", [f"{i}.png" for i in range(10)] + ["sub/11.png"])
    store = pack(tmp_path / "photos", tmp_path / "store", channels=1, held_out=0.0)
    assert store.classes == () and store.refused == () and store.count("train") == 11
    assert any("not taken for a class" in note.text for note in store.notes)


@pytest.mark.parametrize("inside", ["", "store", "deep/er/store"])
def test_a_store_inside_its_own_source_is_refused(tmp_path, inside):
    draw(tmp_path / "photos", [f"{i}.png" for i in range(4)])
    with pytest.raises(UserError, match=r"inside the images' folder .*\(out="):
        pack(tmp_path / "photos", tmp_path / "photos" / inside, channels=1)
    assert len(list((tmp_path / "photos").iterdir())) == 4
