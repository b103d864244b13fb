"""A checkpoint is whole or refused, whatever happens to its bytes; saving never harms what is there."""

import errno
import json
import os
import random
import struct

import pytest
import torch

from refusals import mistake
from tiers import SEED, proven, times
from unstir.errors import UnwrittenError, UserError
from unstir.runs import checkpoint, files
from unstir.runs.checkpoint import FIELDS, Checkpoint

FLIPS, CUTS = times(1_000, 10_000), times(100, 1_000)


@pytest.fixture
def content():
    tensors = {
        "model.a": torch.randn(7, 3), "model.b": torch.randn(7, 3), "ema.a": torch.randn(5).bfloat16(),
        "optimizer.a.step": torch.tensor(3.0), "model.empty": torch.zeros(0, 4),
    }  # fmt: skip
    return Checkpoint(12, {"train": {"lr": 1e-4}}, tensors, {"window": [0.1 + 0.2, 1e-300], "seconds": 1.5})


def test_what_was_saved_is_loaded(content, tmp_path):
    path = checkpoint.save(tmp_path / "made", content)
    assert path.name == "step-00000012.safetensors"
    loaded = checkpoint.load(path)
    assert (loaded.step, loaded.config, loaded.state, loaded.kind) == (12, content.config, content.state, "full")
    assert loaded.tensors.keys() == content.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in content.tensors.items())
    assert loaded.part("model").keys() == {"a", "b", "empty"}
    assert os.listdir(path.parent) == [path.name]


def test_a_checkpoint_can_be_read_by_whom_the_umask_allows(content, tmp_path):
    before = os.umask(0o027)
    try:
        assert checkpoint.save(tmp_path, content).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_every_damage_is_found(content, tmp_path):
    path = checkpoint.save(tmp_path, content)
    whole, chance = path.read_bytes(), random.Random(SEED)
    damaged = [whole[: chance.randrange(len(whole))] for _ in range(CUTS)]
    for _ in range(FLIPS):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(flipped))
    damaged += [whole + b"\0", b"", whole[:100] + b"\0" * 40 + whole[140:], _with_tensors_swapped(whole)]
    for data in damaged:
        path.unlink()  # a new file: ext4 waits for the disk where an old one is cut and written anew
        path.write_bytes(data)
        try:
            loaded = checkpoint.load(path)
        except UserError as error:
            assert str(path) in str(error)
        else:  # safetensors ignores nothing but padding; whatever loads must be equal
            assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in content.tensors.items())
            assert loaded.state == content.state
    proven("flips of a checkpoint", FLIPS)
    proven("cuts of a checkpoint", CUTS)


def _with_tensors_swapped(data):
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    a, b = header["model.a"], header["model.b"]
    a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]
    text = json.dumps(header).encode().ljust(length)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_foreign_future_and_missing_files_are_named(content, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "by unstir" in str(mistake(checkpoint.load, tmp_path / "foreign.safetensors"))
    assert "not exist" in str(mistake(checkpoint.load, tmp_path / "absent.safetensors"))
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    path = checkpoint.save(tmp_path, content)
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 99.*upgrade") as refusal:
        checkpoint.load(path)
    assert not isinstance(refusal.value, checkpoint.DamagedError)  # it is not set aside


def test_a_slim_file_or_a_broken_header_is_nothing_to_continue_from(content, tmp_path):
    checkpoint.save(tmp_path, Checkpoint(3, {}, content.tensors, kind="slim"))
    assert "weights alone" in str(mistake(checkpoint.newest, tmp_path))
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(1)}
    for text in ("{}", "[]", "junk", '{"format": "x"}'):
        metadata = {"unstir": text, "sha256": checkpoint.content_hash(tensors, text)}
        save_file(tensors, tmp_path / "odd.safetensors", metadata)
        with pytest.raises(checkpoint.DamagedError, match="metadata"):
            checkpoint.load(tmp_path / "odd.safetensors")


def test_a_disk_that_cannot_be_read_is_not_taken_for_damage(content, tmp_path, watched):
    path = checkpoint.save(tmp_path, content)
    watched(checkpoint, "safe_open", PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(UserError, match="Permission denied") as refusal:
        checkpoint.newest(tmp_path)
    assert not isinstance(refusal.value, checkpoint.DamagedError) and path.exists()


def test_a_folder_that_cannot_be_made_is_named(content, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "gone/checkpoints", tmp_path / "file"):
        with pytest.raises(UnwrittenError) as refused:
            checkpoint.save(folder, content)
        assert refused.value.filename == str(folder)


def test_a_file_under_the_name_of_another_step_or_without_a_part_of_its_metadata_is_damaged(
    content, tmp_path, monkeypatch
):
    path = checkpoint.save(tmp_path, content)
    path.rename(renamed := tmp_path / checkpoint.file_name(13))
    with pytest.raises(checkpoint.DamagedError, match="step 12"):
        checkpoint.load(renamed)
    assert checkpoint.load(renamed.rename(tmp_path / "a-copy.safetensors")).step == 12  # any other name says nothing
    for name in checkpoint.FIELDS:
        monkeypatch.setattr(checkpoint, "FIELDS", {key: is_kind for key, is_kind in FIELDS.items() if key != name})
        path = checkpoint.save(tmp_path, content)
        monkeypatch.undo()
        with pytest.raises(checkpoint.DamagedError, match=f"has no {name}"):
            checkpoint.load(path)


def test_a_damaged_file_that_is_set_aside_is_listed_no_more(content, tmp_path):
    path = checkpoint.save(tmp_path, content)
    checkpoint.set_aside(path)
    assert checkpoint.listed(tmp_path) == [] and os.listdir(tmp_path) == [path.name + ".damaged"]


def test_what_differs_between_two_environments_is_said_with_both_values():
    here = checkpoint.environment(torch.device("cpu"))
    assert here["torch"] == torch.__version__ and here["device"].startswith("cpu ")
    assert checkpoint.what_differs(here, here) == ""
    said = checkpoint.what_differs({**here, "threads": 99, "randomness": 0}, here)
    assert f"threads={here['threads']}" in said and "threads=99, randomness=0" in said


def test_newest_goes_by_step_and_passes_over_the_damaged(content, tmp_path):
    assert checkpoint.newest(tmp_path) == (None, {})
    for step in (4, 12, 100):
        checkpoint.save(tmp_path, Checkpoint(step, {}, content.tensors))
    os.utime(tmp_path / checkpoint.file_name(4), (2e9, 2e9))
    (tmp_path / "step-x.safetensors").touch()
    assert checkpoint.newest(tmp_path)[0].step == 100
    (tmp_path / checkpoint.file_name(100)).write_bytes(b"junk")
    found, problems = checkpoint.newest(tmp_path)
    assert found.step == 12 and list(problems) == [tmp_path / checkpoint.file_name(100)]
    assert "step-00000100" in problems[tmp_path / checkpoint.file_name(100)]
    checkpoint.keep_last(tmp_path, 1)
    assert "no whole" in str(mistake(checkpoint.newest, tmp_path))


@pytest.mark.parametrize("call", ["save_file", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failing_disk_leaves_what_was_there(content, tmp_path, watched, call, number):
    path = checkpoint.save(tmp_path, content)
    before = path.read_bytes()
    owner = {"save_file": checkpoint, "fsync": files.os, "replace": type(path)}[call]
    watched(owner, call, OSError(number, os.strerror(number)))
    with pytest.raises(UnwrittenError) as raised:
        checkpoint.save(tmp_path, Checkpoint(12, {"other": 1}, content.tensors))
    assert raised.value.errno == number and "MB" in raised.value.strerror
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_disk_has_to_have_room_for_tensors_metadata_and_headers(content, tmp_path, monkeypatch):
    asked, real = [], checkpoint.replacing
    monkeypatch.setattr(checkpoint, "replacing", lambda path, needs: asked.append(needs) or real(path, needs))
    path = checkpoint.save(tmp_path, content)
    text = checkpoint.read_tensors(path)[0]["unstir"]
    values = 2 * 4 * 7 * 3 + 2 * 5 + 4
    assert asked == [values + len(text) + 64 * 5]


def test_weights_that_share_their_memory_are_saved_by_each_name(tmp_path):
    weight = torch.arange(6.0)
    tensors = {"model.a": weight, "model.b": weight, "model.c": weight[2:4]}
    found = checkpoint.load(checkpoint.save(tmp_path, checkpoint.Checkpoint(1, {}, tensors))).tensors
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], t) for name, t in tensors.items())
