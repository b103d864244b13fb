"""What is done to a file or to a process: flipped bits, cuts, forged texts with checksums that fit, failing calls."""

import builtins
import contextlib
import copy
import errno
import io
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unstir.data.manifest import sealed
from unstir.runs import lines, toml
from unstir.runs.checkpoint import content_hash

PAGE = 512
DEEP = "[" * 5000 + "]" * 5000
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**63, 10**400, 1e308, float("nan"), float("inf"), 0.5, "", "x", "a\0b", "\x1b[31mred",
    "\udc80", "../../etc/passwd", [], [[]], [1, "a"], {}, {"a": None}, "9" * 5000,
)  # fmt: skip
"""Values that no reader may fail on, wherever they stand."""


def flip(chance: random.Random, path: Path) -> str:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    return f"bit {place} of {len(content) * 8} flipped"


def cut(chance: random.Random, path: Path) -> str:
    """Cut a file short, fill a page of it with zeros, or let it change places with another of its folder."""
    content, case = path.read_bytes(), chance.randrange(3)
    others = [other for other in path.parent.glob(f"*{path.suffix}") if other != path]
    if case == 2 and others and path.suffix != ".png":  # whole images that change places are another job's order
        other = chance.choice(others)
        ours, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(ours)
        return f"changed places with {other.name}"
    if case == 1 and any(content):
        start = chance.randrange(len(content))
        path.write_bytes(content[:start] + bytes(len(content[start : start + PAGE])) + content[start + PAGE :])
        return f"zeros from byte {start}"
    length = chance.randrange(len(content))
    path.write_bytes(content[:length])
    return f"cut to {length} of {len(content)} bytes"


def forge(chance: random.Random, path: Path) -> str:
    """Change a text that a file holds and make its checksum fit; a file that holds none has a bit flipped."""
    if path.suffix == ".safetensors":
        return _forge_tensors(chance, path)
    if path.suffix == ".toml":
        return _forge_toml(chance, path)
    if path.suffix == ".jsonl":
        texts = path.read_text().splitlines()
        number = chance.randrange(len(texts))
        texts[number], what = _forged(chance, texts[number], lambda values: lines.encode(values))
        path.write_text("\n".join(texts) + "\n", errors="surrogateescape")
        return f"line {number + 1}: {what}"
    if path.suffix == ".json":
        fit = (lambda values: sealed(values).decode()) if path.name == "manifest.json" else lines.encode
        text, what = _forged(chance, path.read_text(), fit)
        path.write_text(text, errors="surrogateescape")
        return what
    return flip(chance, path)


def _forged(chance: random.Random, text: str, fit: Callable[[dict[str, Any]], str]) -> tuple[str, str]:
    """A JSON text with something changed, as text, and what was."""
    if chance.random() < 0.1:
        return chance.choice(
            (DEEP, f'{{"a": {DEEP}}}', "9" * 5000, '"' + "x" * 100_000, "NaN", "{}", "[]", "null")
        ), "odd"
    values = json.loads(text)
    summed = lines.CHECKSUM in values or "manifest_hash" in values
    values.pop(lines.CHECKSUM, None)
    changed, what = mutated(chance, values)
    if not isinstance(changed, dict):
        return json.dumps(changed), what
    with contextlib.suppress(ValueError):  # a number of 5,000 digits has no text by Python's own means
        return (fit(changed) if summed else json.dumps(changed)), what
    return text, "nothing"


def mutated(chance: random.Random, values: Any) -> tuple[Any, str]:
    """A copy of nested values with one of them replaced, removed, doubled or renamed, and what was done."""
    values = copy.deepcopy(values)
    places = list(_places(values))
    holder, key = chance.choice(places)
    case = chance.random()
    if case < 0.65:
        holder[key] = chance.choice(ODD)
        return values, f"{key} is {str(holder[key])[:30]!r}"
    if case < 0.8:
        del holder[key]
        return values, f"{key} is gone"
    if isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
        return values, f"{key} is renamed"
    holder.insert(key, holder[key])
    return values, f"entry {key} is doubled"


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Each (holder, key or index) of nested dicts and lists."""
    keys = list(values) if isinstance(values, dict) else range(min(len(values), 20)) if isinstance(values, list) else ()
    for key in keys:
        yield values, key
        yield from _places(values[key])


def _forge_toml(chance: random.Random, path: Path) -> str:
    if chance.random() < 0.1:
        path.write_text(f"a = {DEEP}\n{path.read_text()}" if chance.random() < 0.5 else f"a = {'9' * 5000}\n")
        return "odd"
    values = toml.read(path)
    changed, what = mutated(chance, values)
    try:
        path.write_text(toml.to_toml(changed), errors="surrogateescape")
    except (TypeError, ValueError, AttributeError):
        text = path.read_text().splitlines()
        del text[chance.randrange(len(text))]
        path.write_text("\n".join(text))
        what = "a line is gone"
    return what


def _forge_tensors(chance: random.Random, path: Path) -> str:
    """Change the text or a tensor's entry in a safetensors file; the hash of its content is made to fit."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    content = path.read_bytes()
    if chance.random() < 0.3:  # the header as it lies
        (length,) = struct.unpack("<Q", content[:8])
        header, what = mutated(chance, json.loads(content[8 : 8 + length]))
        with contextlib.suppress(ValueError, UnicodeError):
            text = json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
            return what
        return "nothing"
    with safe_open(path, framework="pt") as file:
        metadata, names = file.metadata(), file.keys()
        tensors = {name: file.get_tensor(name).clone() for name in names}
    name = next(key for key in metadata if key != "sha256")
    if chance.random() < 0.6:
        metadata[name], what = _forged(chance, metadata[name], json.dumps)
        metadata[name] = metadata[name].encode("utf-8", "replace").decode()
    else:
        key = chance.choice(sorted(tensors))
        case = chance.randrange(3)
        tensor = tensors.pop(key)
        if case == 1:
            tensors[key] = torch.zeros(*tensor.shape, 2, dtype=tensor.dtype)
        elif case == 2:
            tensors[key] = tensor.to(torch.int16 if tensor.is_floating_point() else torch.float64)
        what = f"{key}: " + ("is gone", "has another shape", "has another type")[case]
    save_file(tensors, path, {**metadata, "sha256": content_hash(tensors, metadata[name])})
    return what


@contextlib.contextmanager
def failing_calls(folder: Path, number: int, error: int) -> Iterator[None]:
    """Let the ``number``-th call on a file below ``folder`` fail, and for a full disk each write after it too."""
    count = 0

    def fails(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(place: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            if isinstance(place, int) or str(folder) in str(Path(os.fsdecode(place)).absolute()):
                count += 1
                if count == number or (error == errno.ENOSPC and count > number):
                    raise OSError(error, os.strerror(error), None if isinstance(place, int) else os.fsdecode(place))
            return function(place, *arguments, **options)

        return call

    names = ("open", "fsync", "replace", "rename", "mkdir", "unlink")
    originals = {
        place: getattr(*place) for place in ((builtins, "open"), (io, "open"), *((os, name) for name in names))
    }
    try:
        for place, original in originals.items():
            setattr(*place, fails(original))
        yield
    finally:
        for place, original in originals.items():
            setattr(*place, original)
