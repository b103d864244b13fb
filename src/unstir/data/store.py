"""A packed data set: one folder of plain arrays that training maps into memory, and a manifest that says what they are.

    manifest.json            everything below in words and figures, no time stamps: equal input gives equal bytes
    train.images.npy         uint8 [N, C, H, W], 0..255, C order
    train.labels.npy         int64 [N], absent when the data has no labels
    held_out.images.npy      the images training never sees, kept for likelihood, distances and memorisation
    held_out.labels.npy

Every array starts with a NumPy header of exactly 128 bytes, so that rows can be appended before their number is known,
and so that a file's length alone tells whether it is whole. `np.load` reads the files like any others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unstir.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import and decoding workers do without it
    import torch

FORMAT = 1
"""Version of the folder's layout; a store of a later one is refused."""

SPLITS = ("train", "held_out")
MANIFEST = "manifest.json"
HEADER_BYTES = 128
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Note:
    """One kind of oddity met while packing: what was done, how often, and the first few files it was done to."""

    text: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.text}: {self.count} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True)
class Store:
    """A finished data set on disk; make one with `pack`, open one with `Store.open`."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open the store in folder `path`, checking that each file is there, whole and as the manifest says.

        Bytes are not hashed here (see `verify`). Raises UserError naming the file and the reason.
        """
        path = Path(path)
        store = cls(path, _read_manifest(path))
        for split in SPLITS:
            _check_array(store._file(split, "images"), "|u1", (store.count(split), *store.shape))
            if store.labelled:
                _check_array(store._file(split, "labels"), "<i8", (store.count(split),))
        return store

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of every image."""
        channels, height, width = self.manifest["shape"]
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each label in order; empty when the data has no labels."""
        return tuple(self.manifest["classes"])

    @property
    def labelled(self) -> bool:
        """Whether each image has a label."""
        return bool(self.manifest["classes"])

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over shape, classes, counts, pixels and labels, as computed when the store was packed."""
        return str(self.manifest["content_hash"])

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """The (path, reason) of each file of the source that was not packed."""
        return tuple((path, reason) for path, reason in self.manifest["refused"])

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was done to files out of the ordinary, one Note a kind, most frequent first."""
        notes = (Note(n["text"], n["count"], tuple(n["examples"])) for n in self.manifest["notes"])
        return tuple(notes)

    def count(self, split: str) -> int:
        """Count the images of `split`, "train" or "held_out". Raises UserError for another name."""
        return int(self.manifest["counts"][_known(split)])

    def images(self, split: str) -> torch.Tensor:
        """Map the images of `split` into memory: uint8 [N, C, H, W], 0..255; nothing is read until it is used.

        The mapping is copy-on-write: writing to the tensor changes this process alone, never the file.
        Raises UserError for an unknown split or a file that has gone.
        """
        shape = (self.count(split), *self.shape)
        return self._tensor(self._file(split, "images"), "u1", shape)

    def labels(self, split: str) -> torch.Tensor | None:
        """Map the labels of `split` into memory: int64 [N], 0..len(classes)-1; None when the data has none."""
        shape = (self.count(split),)
        return self._tensor(self._file(split, "labels"), "i8", shape) if self.labelled else None

    def verify(self) -> None:
        """Read every byte and compare with `content_hash`. Raises UserError when they differ."""
        found = content_hash(self.path, self.shape, self.classes, {s: self.count(s) for s in SPLITS})
        if found != self.content_hash:
            raise UserError(
                f"{self.path}: content hash is {found[:12]}..., the manifest says {self.content_hash[:12]}...; "
                "the files were changed or damaged: delete the folder and pack it again"
            )

    def _file(self, split: str, what: str) -> Path:
        return array_file(self.path, split, what)

    def _tensor(self, file: Path, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        import torch

        if shape[0] == 0:  # an empty region cannot be mapped
            return torch.from_numpy(np.zeros(shape, np.dtype(dtype)))
        try:
            array: np.ndarray[Any, Any] = np.load(file, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read ({error}); pack the data again") from None
        return torch.from_numpy(array)


def is_store(path: str | Path) -> bool:
    """Tell whether folder `path` has the manifest of a packed store (which may still fail to open)."""
    try:
        manifest = json.loads((Path(path) / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and "unstir_store" in manifest


def array_file(folder: Path, split: str, what: str) -> Path:
    """Name the file of one array; `what` is "images" or "labels"."""
    return folder / f"{split}.{what}.npy"


def array_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Write the 128-byte NumPy header (format 1.0) of a C-ordered array."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    magic = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return magic + text.ljust(HEADER_BYTES - 11).encode("ascii") + b"\n"


def content_hash(folder: Path, shape: tuple[int, int, int], classes: tuple[str, ...], counts: dict[str, int]) -> str:
    """Hash a store's arrays: SHA-256 over shape, classes and counts as JSON, then the bytes of each array."""
    digest = hashlib.sha256(json.dumps([shape, classes, [counts[s] for s in SPLITS]]).encode())
    for split in SPLITS:
        for what in ("images", "labels") if classes else ("images",):
            for block in _blocks(array_file(folder, split, what)):
                digest.update(block)
    return digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            stream.seek(HEADER_BYTES)
            while block := stream.read(_BLOCK):
                yield block
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; pack the data again") from None


def _known(split: str) -> str:
    if split not in SPLITS:
        raise UserError(f"split={split!r} is unknown; use one of {', '.join(SPLITS)}")
    return split


def _check_array(file: Path, descr: str, shape: tuple[int, ...]) -> None:
    expected = HEADER_BYTES + int(np.prod(shape, dtype=np.int64)) * np.dtype(descr).itemsize
    try:
        with file.open("rb") as stream:
            header = stream.read(HEADER_BYTES)
        length = file.stat().st_size
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; delete the folder and pack the data again") from None
    if length != expected:
        what = "truncated" if length < expected else "too long"
        raise UserError(f"{file}: {what}, {length} bytes where {expected} are due; delete the folder and pack again")
    if header != array_header(descr, shape):
        raise UserError(
            f"{file}: its header differs from the manifest's {list(shape)}; delete the folder and pack again"
        )


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: no packed data here ({MANIFEST} is missing); make it with unstir data pack"
        ) from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; check the path and its permissions") from None
    except ValueError:
        raise UserError(f"{file}: not readable as JSON; delete the folder and pack the data again") from None
    version = manifest.get("unstir_store") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise UserError(f"{file}: store format {version}, this version reads up to {FORMAT}; upgrade unstir")
    if version != FORMAT or not _well_formed(manifest):
        raise UserError(f"{file}: not the manifest of a packed store; delete the folder and pack the data again")
    return dict(manifest)


def _well_formed(manifest: dict[str, Any]) -> bool:
    def natural(value: object) -> bool:
        return type(value) is int and value >= 0

    def pairs(value: object) -> bool:
        return isinstance(value, list) and all(
            isinstance(p, list) and [type(x) for x in p] == [str, str] for p in value
        )

    try:
        return (
            len(manifest["shape"]) == 3
            and all(natural(n) and n > 0 for n in manifest["shape"])
            and all(natural(manifest["counts"][split]) for split in SPLITS)
            and isinstance(manifest["classes"], list)
            and all(isinstance(name, str) for name in manifest["classes"])
            and isinstance(manifest["content_hash"], str)
            and pairs(manifest["refused"])
            and all(
                isinstance(n["text"], str) and natural(n["count"]) and isinstance(n["examples"], list)
                for n in manifest["notes"]
            )
        )
    except (KeyError, TypeError):
        return False
