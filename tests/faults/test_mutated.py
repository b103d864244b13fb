"""Safetensors files with anything changed: equal tensors or one typed error, and never much memory."""

import json
import random
import resource
import struct

import pytest
import torch

from tiers import SEED, proven, times
from unstir.errors import UserError
from unstir.runs import checkpoint
from unstir.runs.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

MUTANTS = times(3_000, 100_000)
NUMBERS = (0, -1, 1, 7, 2**31, 2**53, 2**63 - 1, 2**64, 10**30, 0.5, None, True, "8", [], {})
DTYPES = ("F64", "F16", "BF16", "I8", "U8", "BOOL", "F8_E4M3", "X", "", 3, None)


@pytest.fixture
def content():
    tensors = {"model.a": torch.randn(7, 3), "model.b": torch.randn(7, 3), "ema.a": torch.randn(5).bfloat16()}
    return Checkpoint(12, {"train": {"lr": 1e-4}}, tensors, {"n": 1})


def mutated(whole, chance):
    """The bytes of a file with one to three things changed: in its bytes, its length, or the meaning of its header."""
    for _ in range(chance.randint(1, 3)):
        (length,) = struct.unpack("<Q", whole[:8].ljust(8, b"\0"))
        case = chance.randrange(6)
        if case == 0:
            place = chance.randrange(len(whole) + 1)
            whole = whole[:place] + chance.randbytes(chance.randint(0, 9)) + whole[place + chance.randint(0, 9) :]
        elif case == 1:
            whole = struct.pack("<Q", chance.choice((0, 1, length + 1, length - 1, 2**40, 2**63, 2**64 - 1)) % 2**64)
            whole += chance.randbytes(chance.randrange(400))
        elif case == 2:
            whole = whole[: chance.randrange(len(whole) + 1)]
        else:
            try:
                header = json.loads(whole[8 : 8 + length])
                text = changed(header, case, chance)
            except (ValueError, LookupError, TypeError, AttributeError):  # of an earlier change
                continue
            whole = struct.pack("<Q", len(text)) + text + whole[8 + length :]
    return whole


def changed(header, case, chance):
    """The text of a header that lies: of offsets (overlap, hole, overflow), shapes, types, names; with keys doubled."""
    name = chance.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    if case == 3:
        entry[chance.choice(("data_offsets", "shape"))][chance.randrange(2)] = chance.choice(NUMBERS)
    elif case == 4:
        other = header[chance.choice([key for key in header if key != "__metadata__"])]
        entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
    else:
        entry["dtype"] = chance.choice(DTYPES)
    text = json.dumps(header)
    if chance.random() < 0.2:
        text = text[:-1] + f', "{name}": {json.dumps(entry)}}}'
    return text.encode()


def test_any_mutated_file_is_equal_or_refused_in_a_line(content, tmp_path):
    path = checkpoint.save(tmp_path, content)
    whole, chance, refused = path.read_bytes(), random.Random(SEED), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTANTS):
        data = mutated(whole, chance)
        path.unlink()  # a new file: ext4 waits for the disk where an old one is cut and written anew
        path.write_bytes(data)
        try:
            loaded = checkpoint.load(path)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error), (number, str(error))
        else:
            assert loaded.tensors.keys() == content.tensors.keys(), number
            assert all(torch.equal(loaded.tensors[name], t) for name, t in content.tensors.items()), number
            assert (loaded.step, loaded.state, loaded.config) == (12, content.state, content.config), number
    assert refused > MUTANTS / 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    proven("mutated safetensors files", MUTANTS)
