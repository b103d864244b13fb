"""The journal of an interrupted pack: whatever became of it, the store's bytes are those of an uninterrupted one."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unstir.data import pack, source, writer
from unstir.data.manifest import ORIGIN


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ORIGIN}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(24):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / "ab"[i % 2] / f"{i}.png")
    (root / "a/bad.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_CHUNK_ROWS", 4)
        return contents(pack(photos, tmp_path_factory.mktemp("whole") / "store", size=8).path)


@pytest.fixture(scope="module")
def remains(photos, tmp_path_factory):
    """What a pack stopped after three chunks of four images leaves behind, each flushed."""
    folder = tmp_path_factory.mktemp("remains")

    def stop(done, total):
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_CHUNK_ROWS", 4)
        patch.setattr(writer, "FLUSH_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            pack(photos, folder / "store", size=8, progress=stop)
    return folder / ".store.packing"


def taken_up(remains, staging, journal):
    """The position a pack goes on from that finds this journal."""
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(remains, staging)
    (staging / "journal.jsonl").write_bytes(journal)
    with writer.Writer(staging, head_of(remains), (3, 8, 8), labelled=True) as made:
        pass
    assert made.state.position == sum(made.state.rows.values()) + len(made.state.refused)
    return made.state.position


def head_of(remains):
    return json.loads((remains / "journal.jsonl").read_bytes().splitlines()[0].partition(b" ")[2])


@pytest.mark.parametrize("damage", [False, True])
def test_pack_goes_on_from_a_sound_journal_and_begins_again_from_a_damaged_one(
    photos, whole, remains, tmp_path, monkeypatch, damage
):
    shutil.copytree(remains, tmp_path / ".store.packing")
    journal = tmp_path / ".store.packing/journal.jsonl"
    if damage:
        journal.write_bytes(journal.read_bytes().replace(b'"position": 8', b'"position": 9'))
    calls = []
    monkeypatch.setattr(source, "_CHUNK_ROWS", 4)
    store = pack(photos, tmp_path / "store", size=8, progress=lambda done, total: calls.append(done))
    assert contents(store.path) == whole
    assert calls[0] == (4 if damage else 16)


def test_every_flipped_bit_of_the_journal_is_noticed(remains, tmp_path):
    journal = (remains / "journal.jsonl").read_bytes()
    assert taken_up(remains, tmp_path / "x", journal) == 12
    for flip in range(0, 8 * len(journal), 23):
        damaged = bytearray(journal)
        damaged[flip // 8] ^= 1 << flip % 8
        assert taken_up(remains, tmp_path / "x", bytes(damaged)) == 0
    assert taken_up(remains, tmp_path / "x", journal[:-1]) == 8  # torn
    assert taken_up(remains, tmp_path / "x", journal[:-1] + b"\v") == 8


def chained(head, *values):
    lines = writer._Chained()
    return b"".join(lines.line(value) for value in (head, *values))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_random_structures_in_a_journal_whose_hashes_are_right_are_dropped(remains, tmp_path, data):
    first, *rest = (remains / "journal.jsonl").read_bytes().splitlines()
    head, *values = (json.loads(line.partition(b" ")[2]) for line in (first, *rest))
    at = data.draw(st.integers(0, len(values) - 1))
    key = data.draw(st.sampled_from([None, *sorted(values[at])]))
    values[at] = data.draw(JSON) if key is None else {**values[at], key: data.draw(JSON)}
    taken_up(remains, tmp_path / "x", chained(head, *values))


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"NaN", b"\xff", b'"x"'])
def test_text_that_breaks_parsers_is_dropped(remains, tmp_path, text):
    journal = (remains / "journal.jsonl").read_bytes() + b"0" * 16 + b" " + text + b"\n"
    assert taken_up(remains, tmp_path / "x", journal) == 0
