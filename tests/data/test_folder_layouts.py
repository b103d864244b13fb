"""Layouts that are not quite class folders: what becomes of images beside them."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from refusals import refusing
from unstir.data import pack
from unstir.data.images import UNLABELLED


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
    assert [path.rpartition("/")[2] for path, _ in store.refused] == ["loose.png"]


def test_a_stray_folder_beside_many_images_makes_no_classes(tmp_path):
    draw(tmp_path / "photos", [f"{i}.png" for i in range(10)] + ["sub/11.png"])
    store = pack(tmp_path / "photos", tmp_path / "store", channels=1, held_out=0.0)
    assert store.classes == () and store.refused == () and store.count("train") == 11
    assert any(UNLABELLED in note.text for note in store.notes)


@pytest.mark.parametrize("as_zip", [False, True])
def test_the_sheets_beside_images_that_were_drawn_are_left_out(tmp_path, as_zip):
    draw(tmp_path / "made", [f"{i:06d}.png" for i in range(10)] + ["grid.png", "noise.png", "mine.png"])
    (tmp_path / "made/settings.json").write_text("{}")
    draw(tmp_path / "made/mine", ["000000.png", "grid.png", "noise.png"])  # without settings: photos of another program
    source = tmp_path / "made"
    if as_zip:
        with zipfile.ZipFile(source := tmp_path / "made.zip", "w") as out:
            for path in sorted((tmp_path / "made").rglob("*.*")):
                out.write(path, path.relative_to(tmp_path))
    store = pack(source, tmp_path / "store", channels=1, held_out=0.0)
    assert store.count("train") == 14
    (left,) = [note for note in store.notes if "a sheet of images that are here one by one" in note.text]
    assert left.count == 2 and [path.rpartition("/")[2] for path in left.examples] == ["grid.png", "noise.png"]
    assert all("mine" not in path for path in left.examples)


@pytest.mark.parametrize("inside", ["", "store", "deep/er/store"])
def test_a_store_inside_its_own_source_is_refused(tmp_path, inside):
    draw(tmp_path / "photos", [f"{i}.png" for i in range(4)])
    with refusing(given=tmp_path / "photos" / inside):
        pack(tmp_path / "photos", tmp_path / "photos" / inside, channels=1)
    assert len(list((tmp_path / "photos").iterdir())) == 4
