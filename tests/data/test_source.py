"""How a source is cut into chunks and shared among workers."""

from contextlib import closing
from zipfile import ZipInfo

import numpy as np
import pytest

from unstir.data import folder, packing
from unstir.data.cifar10 import BINARY_SHA256, CifarSource
from unstir.data.folder import FolderSource, arrange
from unstir.data.listing import Entry, Listing, _list_member
from unstir.data.packing import source_of
from unstir.data.source import Options, chunk_ranges, chunk_rows, hold_out, in_python
from unstir.errors import UserError


def options(source, **asked):
    plain = dict.fromkeys(("size", "channels", "held_out", "sha256"))
    return Options(**{"source": source, **plain, "download_dir": None, "strict": False, "seed": 0,
                      "spelling": in_python, **asked})  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "file_bytes", "rows"),
    [
        ((3, 32, 32), 1, 256),
        ((1, 128, 128), 1, 256),
        ((1, 128, 129), 1, 254),
        ((1, 1024, 1024), 1, 4),
        ((3, 4096, 4096), 1, 1),
        ((1, 8, 8), 1 << 14, 256),
        ((1, 8, 8), 1 << 20, 4),
        ((1, 8, 8), 1 << 23, 1),
    ],
)
def test_a_chunk_is_256_images_or_4_mib(shape, file_bytes, rows):
    assert chunk_rows(shape, file_bytes) == rows


def test_no_chunk_has_images_of_both_splits():
    assert chunk_ranges(10, 5, 3) == [("train", 0, 3), ("train", 3, 5), ("held_out", 5, 8), ("held_out", 8, 10)]
    assert chunk_ranges(4, 4, 4) == [("train", 0, 4)] and chunk_ranges(2, 0, 4) == [("held_out", 0, 2)]
    assert chunk_ranges(0, 0, 4) == []


@pytest.mark.parametrize(
    ("count", "size", "workers"), [(1999, 1, 1), (2000, 1, 2), (4000, 1, 3), (10, 1 << 21, 3), (3, 1 << 20, 1)]
)
def test_a_worker_is_started_where_it_has_enough_to_do(tmp_path, monkeypatch, count, size, workers):
    asked = []

    def decoded(root, requests, size, channels, shape, num_workers):
        asked.append(num_workers)
        yield from ()

    monkeypatch.setattr(folder, "decode_all", decoded)
    monkeypatch.setattr(folder, "MAX_WORKERS", 16)
    made = FolderSource(tmp_path, options(tmp_path, held_out=0.0))
    entries = [Entry(f"{number}.png", size, 0) for number in range(count)]
    made._listing = Listing(entries)
    with (
        closing(made._chunks(arrange(entries, 0.0, 0), (1, 8, 8))) as chunks,
        pytest.raises((ValueError, StopIteration)),
    ):
        next(chunks)
    # without chunks nothing is asked for before the first reply, so the workers are those of the call
    assert asked == [workers]


def test_a_folder_keeps_a_tenth_aside(tmp_path):
    made = FolderSource(tmp_path, options(tmp_path))
    assert made.settings == {"size": None, "channels": 3, "held_out": 0.1, "seed": 0}


def test_layouts_at_the_edge_between_a_class_and_a_wrapper():
    assert folder._wrappers([("a", "x", "1"), ("a", "2")]) == 0  # half of them are deeper: a is a class
    assert folder._wrappers([("a", "x", "1"), ("a", "x", "2"), ("a", "3")]) == 1
    evenly = arrange([Entry("cat/1.png", 1, 0), Entry("2.png", 1, 0)], 0.0, 0)
    assert evenly.classes == ("cat",) and [path for path, _ in evenly.refused] == ["2.png"]


def test_an_archive_to_be_downloaded_is_known_by_the_hash_it_will_have():
    made = CifarSource(None, options("cifar10"))
    assert made.source_hash((3, 32, 32)) == made.stamp() == BINARY_SHA256


def test_a_label_is_below_the_number_of_classes():
    made = CifarSource(None, options("cifar10"))
    record = lambda label: bytes([label]) + bytes(3072)
    assert made._chunk("train", record(9) + record(0), 10).labels.tolist() == [9, 0]
    with pytest.raises(UserError, match="label 10 in train, but 10 class names"):
        made._chunk("train", record(0) + record(10), 10)


def test_options_at_their_bounds_are_taken():
    made = source_of(options("digits", size=packing.MAX_SIZE, held_out=0))
    assert (packing.MAX_SIZE, made.size, made.held_out, made.options.seed) == (4096, 4096, 0.0, 0)
    assert source_of(options("digits", seed=np.int64(3))).options.seed == 3


def test_exactly_ten_refused_files_are_all_listed():
    for count, more in ((10, False), (11, True)):
        refused = [(f"{number}.png", "empty file") for number in range(count)]
        with pytest.raises(UserError) as caught:
            packing._check_refused(CifarSource(None, options("cifar10", strict=True)), refused)
        said = str(caught.value)
        assert said.count("empty file") == 10 and (", and 1 more" in said) is more


def test_notes_are_grouped_with_the_most_frequent_first_and_ten_examples():
    notes = packing._notes([("b", "0"), *(("c", str(n)) for n in range(12)), ("a", "1")])
    assert [(note["text"], note["count"]) for note in notes] == [("c", 12), ("a", 1), ("b", 1)]
    assert notes[0]["examples"] == [str(n) for n in range(10)]


@pytest.mark.parametrize(
    ("count", "fraction", "held"),
    [(1, 0.5, 0), (2, 0.1, 1), (3, 0.1, 1), (15, 0.1, 2), (20, 0.1, 2), (2, 0.9, 1), (10, 0.9, 9), (9, 0, 0)],
)
def test_of_each_class_a_share_is_held_out_and_never_all(count, fraction, held):
    assert len(hold_out([str(number) for number in range(count)], [7] * count, fraction, 0)) == held


def test_an_encrypted_member_of_a_zip_is_refused_unread():
    member, found = ZipInfo("a.png"), Listing()
    member.flag_bits = 1
    _list_member(None, member, found, set())
    assert found.refused == [("a.png", "encrypted")] and not found.entries
