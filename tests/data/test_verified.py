"""The bytes of a store are read once a process, and again as soon as a file has changed."""

import os
from dataclasses import replace

import pytest

from conftest import copied
from unstir.data import Store, verify_once
from unstir.errors import UserError


@pytest.fixture
def store(digits, tmp_path):
    return Store.open(copied(digits, tmp_path / "digits"))


def test_bytes_are_read_once_until_a_file_changes(store, monkeypatch):
    read = []
    verify = Store.verify
    monkeypatch.setattr(Store, "verify", lambda self: (read.append(self.path), verify(self)))
    verify_once(store)
    verify_once(Store.open(store.path))
    assert len(read) == 1
    file = store.path / "held_out.labels.npy"
    kept, times = file.read_bytes(), os.stat(file)
    file.write_bytes(kept[:-8] + bytes([(kept[-8] + 1) % 10]) + kept[-7:])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # a copy may bring the old time along
    for _ in range(2):  # what was refused is not taken for read
        with pytest.raises(UserError, match="the files were changed or damaged"):
            verify_once(store)
    file.write_bytes(kept)
    verify_once(store)
    assert len(read) == 4


def test_another_manifest_over_the_same_bytes_is_read_anew(store):
    verify_once(store)
    with pytest.raises(UserError, match="the files were changed or damaged"):
        verify_once(replace(store, manifest={**store.manifest, "classes": store.manifest["classes"][::-1]}))
    (store.path / "train.images.npy").unlink()
    with pytest.raises(UserError, match=r"train.images.npy"):
        verify_once(store)
