"""When what was packed reaches the disk, and in what order."""

import numpy as np
import pytest

from unstir.data import writer
from unstir.data.source import Chunk
from unstir.data.store import HEADER_BYTES
from unstir.data.writer import Progressed, Writer


def chunk(stop):
    return Chunk("train", np.zeros((2, 1, 2, 2), np.uint8), None, stop)


def test_what_was_packed_is_flushed_after_half_a_second_and_arrays_before_the_journal(tmp_path, monkeypatch):
    now, synced = [100.0], []
    monkeypatch.setattr(writer.time, "monotonic", lambda: now[0])

    def sync(descriptor):
        journal = (tmp_path / "journal.jsonl").read_bytes().count(b"\n") - 1
        images = (tmp_path / "store/train.images.npy").stat().st_size - HEADER_BYTES
        synced.append((images, journal))

    monkeypatch.setattr(writer.os, "fsync", sync)
    with Writer(tmp_path, {"a": 1}, (1, 2, 2), labelled=False) as made:
        now[0] += 0.4375
        made.write(chunk(2))
        assert synced == []
        now[0] += 0.0625
        made.write(chunk(4))
        assert synced == [(16, 0), (16, 0), (16, 2)]  # both arrays, then the journal that counts them
        now[0] += 0.4375
        made.write(chunk(6))
        assert len(synced) == 3
        made.flush()
        assert synced[-1] == (24, 3)


@pytest.mark.parametrize(
    ("change", "sound"),
    [
        ({}, True),
        ({"position": 4}, False),
        ({"rows": {"train": 3, "held_out": -1}, "position": 3}, False),
        ({"rows": {"train": 0, "held_out": 0}, "refused": [], "position": 0}, True),
        ({"rows": {"train": 2, "held_out": 0, "more": 0}, "position": 3}, False),
        ({"rows": {"train": True, "held_out": 1}}, False),
        ({"digests": [3]}, False),
        ({"notes": [("a", None)]}, False),
    ],
)
def test_a_state_is_sound_where_its_numbers_add_up(change, sound):
    whole = {"position": 3, "rows": {"train": 2, "held_out": 0}, "refused": [("a", "b")], "notes": [], "digests": []}
    assert Progressed(**{**whole, **change}).is_sound() is sound
