"""A manifest is opened as it was written or refused in one line; equal images give equal bytes wherever they lie."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from encoding import encoded, fill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from refusals import mistake
from unstir.data import Store, is_store, pack
from unstir.data.classes import class_number
from unstir.data.manifest import MANIFEST, ORIGIN, Note, parsed, sealed
from unstir.errors import UserError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes, a damaged picture, one of a foreign format, and one that is no picture."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    files = {f"{('cat', 'dog')[i % 2]}/{i}.png": encoded(Image.fromarray(pixels[i])) for i in range(12)}
    root = fill(tmp_path_factory.mktemp("photos") / "in", files)
    for kind in ("png", "jpg", "webp", "gif", "bmp", "tif"):
        whole = (root / "cat/0.png").with_suffix(f".{kind}")
        Image.new("RGB", (8, 8), "red").save(whole.with_stem("cut"))
        data = whole.with_stem("cut").read_bytes()
        whole.with_stem("cut").write_bytes(data[: len(data) // 2])
        whole.with_stem("head").write_bytes(data[:16] + b"?" * 40)
    (root / "dog/photo.heic").write_bytes(b"heic")
    (root / "dog/notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory):
    return pack(photos, tmp_path_factory.mktemp("packed") / "store").path


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "copy")


def test_every_flipped_bit_of_the_manifest_that_changes_what_it_says_is_refused(copy):
    file = copy / MANIFEST
    data = file.read_bytes()
    content, seen = json.loads(data), 0
    for flip in range(0, 8 * len(data), 37):
        damaged = bytearray(data)
        damaged[flip // 8] ^= 1 << flip % 8
        try:
            same = json.loads(damaged) == content
        except ValueError:
            same = False
        file.write_bytes(damaged)
        assert is_store(copy)
        if same:  # a space for a line end
            assert Store.open(copy).manifest == {k: v for k, v in content.items() if k != "manifest_hash"}
            continue
        seen += 1
        assert mistake(Store.open, copy).given == file
    assert seen > 300


FORGED = [
    ("shape", [True, 8, 8]),
    ("shape", [3, 8, 0]),
    ("shape", [3, 8.0, 8]),
    ("shape", [3, 10**30, 10**30]),
    ("shape", [3, 8]),
    ("counts", {"train": -1, "held_out": 2}),
    ("counts", {"train": 10, "held_out": 2, "more": 0}),
    ("counts", {"train": True, "held_out": 2}),
    ("classes", ["cat"]),
    ("classes", ["cat", 1]),
    ("counts_per_class", {}),
    ("counts_per_class", {"train": [5, 5], "held_out": [1, 2]}),
    ("counts_per_class", {"train": [5, 5], "held_out": [3, -1]}),
    ("refused", [["a", None]]),
    ("notes", [{"text": "x", "count": 0, "examples": []}]),
    ("settings", {"size": [8]}),
    ("settings", {"size": [8]}),
    ("content_hash", None),
    ("unstir_store", True),
    ("unknown", 1),
]


@pytest.mark.parametrize(("key", "value"), FORGED, ids=lambda value: str(value)[:30])
def test_forged_manifest_whose_hash_is_right_is_refused(copy, key, value):
    (copy / MANIFEST).write_bytes(sealed({**json.loads((copy / MANIFEST).read_text()), key: value}))
    assert mistake(Store.open, copy).given == copy / MANIFEST


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"unstir_store": 2, "shape": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"unstir_store": ' + b"9" * 5000 + b"}",
        b'{"unstir_store": NaN}',
        b'{"unstir_store": 2, "shape": [3, 1e999, 8]}',
        b'{"unstir_store": 2, "kind": "\\udce9"}',
        b"",
        b"[]",
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_text_that_breaks_parsers_is_one_line(copy, text):
    (copy / MANIFEST).write_bytes(text)
    assert is_store(copy)  # so that nobody packs over it or beside it without a word
    refused = mistake(Store.open, copy)
    assert refused.given == copy / MANIFEST and len(str(refused)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_random_structures_in_a_manifest_raise_user_errors_alone(copy, packed, data):
    content = json.loads((packed / MANIFEST).read_text())
    keys = data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=3, unique=True))
    changed = {**content, **{key: data.draw(JSON) for key in keys}}
    try:
        text = sealed(changed)
    except ValueError:  # NaN: nothing of ours would write it
        text = json.dumps(changed).encode()
    (copy / MANIFEST).write_bytes(text)
    try:
        store = Store.open(copy)
    except UserError as error:
        assert "\n" not in str(error)
    else:  # only words were changed
        store.notes, store.refused, class_number(store.classes, "0")


@given(st.binary(max_size=200))
def test_random_bytes_are_json_or_a_value_error(text):
    with suppress(ValueError):
        parsed(text)


def test_names_in_a_forged_manifest_are_printable_when_they_are_read(copy):
    content = json.loads((copy / MANIFEST).read_text())
    content["classes"] = ["\x1b[2Jcat", "d\nog"]
    content["refused"] = [["\x1b]0;x\x07.png", "no\rreason"]]
    (copy / MANIFEST).write_bytes(sealed(content))
    store = Store.open(copy)
    assert store.classes == (r"\x1b[2Jcat", r"d\nog")
    assert store.refused == ((r"\x1b]0;x\x07.png", r"no\rreason"),)


def test_damaged_store_is_said_and_not_packed_over(photos, copy):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    for damage in (b"", b"{}", before[MANIFEST].replace(b"unstir", b"unstar")):
        (copy / MANIFEST).write_bytes(damage)
        assert MANIFEST in str(mistake(pack, photos, copy))
    (copy / MANIFEST).unlink()
    assert is_store(copy)
    assert MANIFEST in str(mistake(pack, photos, copy))
    left = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert left == {name: data for name, data in before.items() if name != MANIFEST}


def test_folder_of_something_else_with_or_without_a_manifest_is_no_store(tmp_path):
    assert mistake(Store.open, tmp_path).given == tmp_path
    (tmp_path / MANIFEST).write_text('{"name": "web app", "icons": []}')
    assert not is_store(tmp_path)
    assert not is_store(tmp_path / "nowhere") and not is_store("") and not is_store("a\0b")


PACK = "import sys; from unstir.data import pack; pack(sys.argv[1], sys.argv[2])"


def bytes_of(store):
    return {path.name: path.read_bytes() for path in store.iterdir() if path.name != ORIGIN}


def test_equal_images_give_equal_bytes_in_another_process_and_from_another_place(photos, packed, tmp_path):
    elsewhere = shutil.copytree(photos, tmp_path / "else where", copy_function=shutil.copy)  # other times, too
    assert len(Store.open(packed).refused) > 8
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", PACK, elsewhere, tmp_path / "store"], env=environment, check=True)
    assert bytes_of(tmp_path / "store") == bytes_of(packed)


@pytest.mark.parametrize("origin", [None, b"", b"[" * 100_000, b'{"stamp": 3}', b'{"source": "x", "stamp": "old"}'])
def test_store_is_known_again_whatever_became_of_its_origin(photos, copy, origin):
    (copy / ORIGIN).unlink()
    if origin is not None:
        (copy / ORIGIN).write_bytes(origin)
    assert pack(photos, copy).path == copy


def test_a_note_tells_that_there_are_more_than_its_examples():
    assert str(Note("grey", 2, ("a", "b"))) == "grey: 2 (a, b)"
    assert str(Note("grey", 3, ("a", "b"))) == "grey: 3 (a, b, ...)"
