"""What is said when the data of a run has moved, is damaged, or cannot be packed: in words that fit `unstir train`."""

from dataclasses import replace

import pytest
from PIL import Image

from conftest import copied, tiny_config
from refusals import refusing
from unstir.data import pack
from unstir.data.manifest import PACK_AGAIN
from unstir.errors import UserError
from unstir.train.launch import open_data, open_run


@pytest.fixture
def run(tmp_path):
    """A run on a folder of images that are packed; (config, run folder, store folder, folder of images)."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), i).save(photos / f"{i}.png")
    config = tiny_config(tmp_path / "store", data__source=str(photos))
    store = open_data(config, tmp_path / "run")
    open_run(config, tmp_path / "run", store)
    return config, tmp_path / "run", tmp_path / "store", photos


def test_store_and_source_that_have_gone_are_asked_for_by_data_store(run, tmp_path):
    config, out, store, photos = run
    store.rename(tmp_path / "moved")
    photos.rename(tmp_path / "elsewhere")
    with refusing("data.store", store):
        open_data(config, out)
    moved = tiny_config(tmp_path / "moved", data__source=str(photos))
    assert open_data(moved, out).path == tmp_path / "moved"


def test_a_hash_is_not_taken_for_that_of_a_store(run, tmp_path):
    _, _, store, _ = run
    config = tiny_config("", data__source=str(store), data__sha256="0" * 64)
    with pytest.raises(UserError) as refused:
        open_data(config, tmp_path / "new")
    assert refused.value.remedy == {"data.sha256": None}


def test_damaged_store_of_a_run_is_said_and_no_other_is_packed(run, tmp_path):
    config, out, store, _ = run
    manifest = store / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=PACK_AGAIN):
        open_data(config, out)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_images_of_two_sizes_need_one(run, tmp_path):
    Image.new("L", (9, 9)).save(run[3] / "other.png")
    with pytest.raises(UserError) as refused:
        open_data(tiny_config(tmp_path / "new", data__source=str(run[3])), tmp_path / "second")
    assert refused.value.remedy == {"size": 8}


def test_path_with_a_nul_is_one_line(tmp_path):
    config = tiny_config(tmp_path / "store")
    for section in ({"source": "a\0b"}, {"source": "a\0b", "store": ""}, {"store": "a\0b"}):
        with pytest.raises(UserError, match="zero byte"):
            tiny_config(tmp_path / "store", **{f"data__{key}": text for key, text in section.items()})
        with pytest.raises(UserError, match="a path"):
            open_data(replace(config, data=replace(config.data, **section)), tmp_path / "run")


def test_store_of_an_older_format_is_refused_with_the_remedy(tmp_path, digits):
    old = copied(digits, tmp_path / "old")
    text = (old / "manifest.json").read_text().replace('"unstir_store": 2', '"unstir_store": 1')
    (old / "manifest.json").write_text(text)
    for act in (lambda: open_data(tiny_config(old), tmp_path / "run"), lambda: pack("digits", old)):
        with pytest.raises(UserError) as refused:
            act()
        assert (refused.value.given, refused.value.remedy) == (old / "manifest.json", PACK_AGAIN)
