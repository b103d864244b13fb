"""The manifest of a store: written with a hash over its own content, read only where that hash and its form are right.

The hash is SHA-256 over the manifest's JSON without it (keys sorted, no spaces). What depends on place and time is kept
apart, in origin.json, so that equal images and settings give equal bytes.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from unstir.data.disk import file_errors, open_file
from unstir.data.images import MAX_PIXELS, MOST_CHANNELS, Shape
from unstir.errors import UserError

FORMAT = 3  # version of a store's layout; a store of any other is refused

SPLITS = ("train", "held_out")
MANIFEST = "manifest.json"
ORIGIN = "origin.json"
_HASH = "manifest_hash"
_MOST_IMAGES = 1 << 40
PACK_AGAIN = "delete the folder and pack the data again"


@dataclass(frozen=True)
class Note:
    """Something unusual met in packing: what was done, how often, and the first files it was done to."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    text: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.text}: {self.count} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True)
class _Form:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    unstir_store: int
    kind: str
    settings: dict[str, bool | int | float | str | None]
    source_hash: str
    content_hash: str
    shape: Shape
    scale: list[tuple[float, float]]
    counts: dict[str, int]
    classes: list[str]
    condition: list[int]
    counts_per_class: dict[str, list[int]]
    held_out_rule: str
    refused: list[tuple[str, str]]
    notes: list[Note]
    manifest_hash: str

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        numbers = [*self.counts.values(), *(n for counts in self.counts_per_class.values() for n in counts)]
        per_class = {split: [len(self.classes), n] for split, n in self.counts.items() if self.classes}
        if not (
            self.unstir_store == FORMAT
            and (0 < channels <= MOST_CHANNELS and min(height, width) > 0 and height * width <= MAX_PIXELS)
            and len(self.scale) in (0, channels)
            and all(math.isfinite(low) and low < high < math.inf for low, high in self.scale)
            and (len(self.condition) in (0, 1) or (len(self.condition) == 3 and self.condition[1:] == [height, width]))
            and all(number > 0 for number in self.condition)
            and sorted(self.counts) == sorted(SPLITS)
            and all(0 <= n <= _MOST_IMAGES for n in numbers)
            and {split: [len(counts), sum(counts)] for split, counts in self.counts_per_class.items()} == per_class
            and all(note.count > 0 for note in self.notes)
            and all(type(value) is not float or math.isfinite(value) for value in self.settings.values())
        ):
            raise ValueError


_FORM = TypeAdapter(_Form)


def sealed(content: dict[str, Any]) -> bytes:
    """The bytes of a manifest with this content and its hash."""
    content = {key: value for key, value in content.items() if key != _HASH}
    return json.dumps({**content, _HASH: _hashed(content)}, indent=1, allow_nan=False).encode() + b"\n"


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the store in ``folder``. Raises UserError where it is missing, damaged, or of another format."""
    file = folder / MANIFEST
    with file_errors(file):
        if not file.exists():
            allowed = f"is no packed store ({MANIFEST} is missing)" if folder.exists() else "does not exist"
            raise UserError("", folder, allowed, "name a packed store, or make one with unstir data pack")
        with open_file(file) as stream:
            data = stream.read()
    damaged = UserError("", file, "is damaged, or not the manifest of a packed store", PACK_AGAIN)
    try:
        content = parsed(data)
    except ValueError:
        raise damaged from None
    version = content.get("unstir_store") if isinstance(content, dict) else None
    if type(version) is int and version > 0 and version != FORMAT:
        mend = PACK_AGAIN if version < FORMAT else "upgrade unstir"
        raise UserError("", file, f"has format {str(version)[:20]}, and this unstir reads {FORMAT}", mend)
    try:
        _FORM.validate_json(data, strict=True)
    except ValueError:
        raise damaged from None
    if content.pop(_HASH) != _hashed(content):
        raise UserError("", file, "was changed or damaged since it was packed", PACK_AGAIN)
    return dict(content)


def parsed(data: bytes) -> Any:
    """The value that JSON stands for. Raises ValueError for all else, also NaN and what is nested too deeply."""
    try:
        return json.loads(data, parse_constant=int)  # NaN and the infinities are no int
    except RecursionError:
        raise ValueError("nested too deeply") from None


class Origin(NamedTuple):
    """Where the images of a store came from: the source, its stamp then, and the licence of the data."""

    source: str = ""
    stamp: str = ""
    license: str = ""


def read_origin(folder: Path) -> Origin:
    """What a store was packed from; empty where that is not known any more."""
    try:
        with open_file(folder / ORIGIN) as stream:
            origin = parsed(stream.read())
    except (OSError, ValueError):
        return Origin()
    return Origin(*(str(origin.get(key, "")) if isinstance(origin, dict) else "" for key in Origin._fields))


def write_origin(folder: Path, origin: Origin) -> None:
    """Keep what a store was packed from, beside its manifest."""
    (folder / ORIGIN).write_bytes(json.dumps(origin._asdict(), indent=1).encode() + b"\n")


def _hashed(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
