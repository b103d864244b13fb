"""A packed store: what it says, how it refuses to open, and what it costs where it is larger than memory."""

import contextlib
import json
import mmap
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refusals import mistake, refusing
from unstir.data import Ahead, Store, pack
from unstir.data import store as stores
from unstir.data.classes import matched
from unstir.data.manifest import FORMAT, MANIFEST, PACK_AGAIN, sealed
from unstir.data.store import HEADER_BYTES, Array, arrays
from unstir.errors import UserError
from unstir.randomness import Order
from unstir.train import levers
from unstir.train.levers import Batches


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "digits"
    pack("digits", out)
    return out


@pytest.fixture
def copy(digits, tmp_path):
    return Path(shutil.copytree(digits, tmp_path / "copy"))


def test_digits_are_split_by_class_and_match_their_source(digits):
    from sklearn.datasets import load_digits

    store = Store.open(digits)
    assert store.shape == (1, 8, 8)
    assert store.classes == tuple("0123456789")
    assert (store.count("train"), store.count("held_out")) == (1498, 299)
    labels = store.labels("held_out")
    assert labels is not None and labels.dtype == torch.int64
    assert set(labels.bincount().tolist()) <= {29, 30}
    official = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    ours = torch.cat([store.images("train"), store.images("held_out")]).numpy()
    assert sorted(x.tobytes() for x in ours) == sorted(x.tobytes() for x in official)
    store.verify()


def test_mnist_is_split_by_class_and_has_no_image_twice(tmp_path):
    store = pack("mnist", tmp_path / "mnist")
    assert store.shape == (1, 28, 28) and store.classes == tuple("0123456789")
    assert (store.count("train"), store.count("held_out")) == (9001, 999)
    images, labels = (torch.cat([read("train"), read("held_out")]) for read in (store.images, store.labels))  # type: ignore[arg-type]
    assert labels.bincount().tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    assert len({image.numpy().tobytes() for image in images}) == 10_000
    assert images.max() == 255
    published = 0.1307  # the mean of all 60,000
    assert images.float().mean().item() / 255 == pytest.approx(published, abs=0.001)


def test_images_are_mapped_and_writing_to_them_leaves_the_file_alone(copy):
    images = Store.open(copy).images("train")
    assert images.dtype == torch.uint8 and images.is_contiguous()
    images.zero_()
    Store.open(copy).verify()


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=4), st.sampled_from(["|u1", "<i8"]))
def test_header_is_what_numpy_reads(shape: list[int], descr: str) -> None:
    import io

    stream = io.BytesIO(Array(Path(), descr, tuple(shape)).header)
    assert np.lib.format.read_magic(stream) == (1, 0)
    assert np.lib.format.read_array_header_1_0(stream) == (tuple(shape), False, np.dtype(descr))
    assert stream.tell() == 128


@pytest.mark.parametrize("name", ["train.images.npy", "train.labels.npy", "held_out.images.npy", "manifest.json"])
def test_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert mistake(Store.open, copy).given == (copy if name == "manifest.json" else copy / name)


@given(cut=st.integers(1, 90_000))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_truncated_array_is_refused(copy: Path, cut: int) -> None:
    file = copy / "train.images.npy"
    whole = file.read_bytes()
    for damaged in (whole[:-cut], whole + b"x"):
        file.write_bytes(damaged)
        assert mistake(Store.open, copy).given == file
    file.write_bytes(whole)


def test_header_of_another_shape_is_refused(copy):
    with (copy / "train.images.npy").open("r+b") as file:
        file.write(Array(Path(), "|u1", (1498, 8, 8, 1)).header)
    assert mistake(Store.open, copy).given == copy / "train.images.npy"


def test_an_open_store_is_read_once(digits, monkeypatch):
    read, real = [], stores.content_hash
    monkeypatch.setattr(stores, "content_hash", lambda folder, *given: read.append(folder) or real(folder, *given))
    store = Store.open(digits)
    for _ in range(2):
        store.verify()
    assert read == [digits]


def test_any_flipped_bit_fails_verification(copy):
    rng = np.random.default_rng(0)
    store = Store.open(copy)
    for name in ("train.images.npy", "held_out.images.npy", "train.labels.npy", "held_out.labels.npy"):
        data = (copy / name).read_bytes()
        for _ in range(5):
            flipped = bytearray(data)
            flipped[rng.integers(128, len(data))] ^= 1 << int(rng.integers(8))
            (copy / name).write_bytes(flipped)
            assert mistake(store.verify).given == copy
        (copy / name).write_bytes(data)
    store.verify()


@pytest.mark.parametrize(("version", "remedy"), [(4, "upgrade unstir"), (1, PACK_AGAIN), (None, PACK_AGAIN)])
def test_manifest_of_another_format_is_refused(copy: Path, version: int | None, remedy: str) -> None:
    file = copy / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unstir_store": version}))
    with refusing(given=file, remedy=remedy):
        Store.open(copy)


def test_unknown_split_is_refused(digits):
    with refusing("split", "test"):
        Store.open(digits).images("test")


def test_nothing_held_out_gives_an_empty_split(tmp_path):
    store = pack("digits", tmp_path / "all", held_out=0)
    assert store.images("held_out").shape == (0, 1, 8, 8)
    assert store.count("train") == 1797


def test_digits_in_colour_and_enlarged(tmp_path):
    store = pack("digits", tmp_path / "rgb", channels=3, size=16)
    images = store.images("train")
    assert store.shape == (3, 16, 16)
    assert torch.equal(images[:, 0], images[:, 2])
    assert "17x17" in mistake(pack, "digits", tmp_path / "large", size=17).allowed


@pytest.mark.parametrize(("label", "is_sound"), [(0, True), (9, True), (-1, False), (10, False)])
def test_labels_are_those_of_classes(digits, monkeypatch, label, is_sound):
    store = Store.open(digits)
    monkeypatch.setattr(stores, "content_hash", lambda *_: store.content_hash)
    monkeypatch.setattr(Store, "labels", lambda self, split: torch.tensor([5, label]))
    with contextlib.nullcontext() if is_sound else pytest.raises(UserError, match="in train"):
        store.verify()


@pytest.mark.parametrize(
    ("names", "classes", "numbers"),
    [
        ("cat dog", "cat dog", (0, 1)),
        ("Cat sea-lion", "cat sea_lion", (0, 1)),
        ("crane crane", "crane crane", (0, 1)),  # as ImageNet has
        ("crane x crane", "x crane crane", None),
        ("0 1 2", "0 1", None),
        ("dog cat ant", "ant cat dog", (2, 1, 0)),
        ("cat dog", "cat fox", None),
        ("0 1", "cat dog", (0, 1)),  # nobody said their names
        ("cat dog", "0 1", (0, 1)),
        ("0 1", "1 2", (0, 1)),
        ("1 0", "0 1", (1, 0)),
    ],
)
def test_classes_are_matched_by_name_and_by_number_where_they_have_none(names, classes, numbers):
    assert matched(names.split(), classes.split()) == numbers


SHAPE, BATCH = (3, 32, 32), 32


def sparse(folder, train):
    """A store of so many images of zeros and no labels."""
    folder.mkdir()
    counts = {"train": train, "held_out": 10}
    content = {
        "unstir_store": FORMAT, "kind": "folder", "settings": {}, "source_hash": "0" * 64, "content_hash": "0" * 64,
        "shape": SHAPE, "scale": [], "counts": counts, "classes": [], "condition": [], "counts_per_class": {},
        "held_out_rule": "",
        "refused": [], "notes": [],
    }  # fmt: skip
    for array in arrays(folder, content).values():
        array.file.write_bytes(array.header)
        os.truncate(array.file, array.length)
    (folder / MANIFEST).write_bytes(sealed(content))
    return folder


def _cost():
    """Bytes read by calls and bytes of the process's own memory, so far."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counted["rchar"]), int(status["RssAnon"].split()[0]) * 1024


def _first_batch(folder):
    before = _cost()
    store = Store.open(folder)
    batches = Batches(store, seed=0, batch_size=BATCH, flip=True, labels=False, device=torch.device("cpu"))
    assert batches(0, torch.arange(BATCH), slice(None))[0].shape == (BATCH, *SHAPE)
    return [after - first for after, first in zip(_cost(), before, strict=True)]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what a process reads is counted by Linux")
def test_neither_bytes_read_nor_memory_grow_with_the_store(tmp_path):
    _first_batch(sparse(tmp_path / "warm", 20_000))
    small = _first_batch(sparse(tmp_path / "small", 20_000))
    large = _first_batch(sparse(tmp_path / "large", 20_000_000))
    assert large[0] < small[0] + 4096
    assert large[1] < small[1] + (8 << 20)  # a list of all images would take 160 MB


def test_the_next_images_are_asked_for_with_each_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "LARGE", 0)
    store = Store.open(sparse(tmp_path / "store", 2_000))
    asked = []
    monkeypatch.setattr(levers, "Ahead", lambda images: asked.append)
    batches = Batches(store, seed=4, batch_size=BATCH, flip=False, labels=False, device=torch.device("cpu"))
    steps = batches.steps_per_epoch
    for part in (slice(0, 10), slice(10, None)):
        batches(steps - 1, torch.arange(BATCH)[part], part)
    assert asked == [Order(4, "order", 1, 2_000)[:BATCH][part].tolist() for part in (slice(0, 10), slice(10, None))]


def test_rows_are_asked_for_by_whole_pages_that_hold_them(tmp_path, monkeypatch):
    spans = []

    class Map(mmap.mmap):
        def madvise(self, advice, start, length):
            super().madvise(advice, start, length)  # the system takes it
            spans.append((start, start + length))

    monkeypatch.setattr(mmap, "mmap", Map)
    Ahead(Store.open(sparse(tmp_path / "store", 50)).arrays()["train", "images"])([0, 49])
    for (start, stop), row in zip(spans, (0, 49), strict=True):
        assert start % 4096 == 0 and start <= HEADER_BYTES + row * 3072 < start + 4096
        assert stop == HEADER_BYTES + (row + 1) * 3072


@pytest.mark.parametrize("length", [0, 100, HEADER_BYTES + 49 * 3072])
def test_a_file_cut_after_the_store_was_opened_is_named(tmp_path, length):
    store = Store.open(sparse(tmp_path / "store", 50))
    os.truncate(tmp_path / "store" / "train.images.npy", length)
    assert mistake(store.images, "train").given == tmp_path / "store" / "train.images.npy"
