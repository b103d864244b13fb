"""A store larger than memory: what opening and a first batch cost does not grow with it.

The stores are sparse files: their length is real, their zeros take no disk.
"""

import mmap
import os
from pathlib import Path

import pytest
import torch

from refusals import refusing
from unstir.data import Ahead, Store
from unstir.data import store as stores
from unstir.data.manifest import FORMAT, MANIFEST, sealed
from unstir.data.store import HEADER_BYTES, arrays
from unstir.randomness import Order
from unstir.train import levers
from unstir.train.levers import Batches

SHAPE, BATCH = (3, 32, 32), 32


def sparse(folder, train):
    """A store of so many images of zeros and no labels."""
    folder.mkdir()
    counts = {"train": train, "held_out": 10}
    for array in arrays(folder, SHAPE, counts, labelled=False).values():
        array.file.write_bytes(array.header)
        os.truncate(array.file, array.length)
    content = {
        "unstir_store": FORMAT, "kind": "folder", "settings": {}, "source_hash": "0" * 64, "content_hash": "0" * 64,
        "shape": SHAPE, "counts": counts, "classes": [], "counts_per_class": {}, "held_out_rule": "", "refused": [],
        "notes": [],
    }  # fmt: skip
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
    with refusing(given=tmp_path / "store" / "train.images.npy"):
        store.images("train")
