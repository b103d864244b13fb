"""A packed data set: one folder of plain arrays that training maps into memory, and a manifest that says what they are.

    manifest.json            everything below in words and figures, and a hash over them: equal input gives equal bytes
    origin.json              where it was packed from, to know that source again; nothing rests on it
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
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unstir.data import manifest as manifests
from unstir.data.disk import open_file, usable_path
from unstir.data.manifest import MANIFEST, SPLITS, Note
from unstir.errors import UserError, printable, remedy

if TYPE_CHECKING:  # torch takes seconds to import and decoding workers do without it
    import torch

HEADER_BYTES = 128
_BLOCK = 1 << 22
_verified: set[tuple[Any, ...]] = set()


@dataclass(frozen=True)
class Store:
    """A finished data set on disk; make one with `pack`, open one with `Store.open`."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open the store in folder `path`, checking that each file is there, whole and as the manifest says.

        The manifest is compared with its own hash; the bytes of the arrays are not hashed here (see `verify`).
        Raises UserError naming the file and the reason.
        """
        path = usable_path(path)
        store = cls(path, manifests.read(path))
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
        """The name of each label in order, `printable`; empty when the data has no labels."""
        return tuple(map(printable, self.manifest["classes"]))

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
        """The (path, reason) of each file of the source that was not packed, both `printable`."""
        return tuple((printable(path), printable(reason)) for path, reason in self.manifest["refused"])

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was done to files out of the ordinary, one Note a kind, most frequent first."""
        notes = self.manifest["notes"]
        return tuple(Note(printable(n["text"]), n["count"], tuple(map(printable, n["examples"]))) for n in notes)

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
        """Read every byte and compare with `content_hash`. Raises UserError when they differ.

        A gigabyte takes about a second of processor time. Whoever makes a figure of the data calls this first.
        """
        found = content_hash(self.path, self.shape, self.manifest["classes"], {s: self.count(s) for s in SPLITS})
        if found != self.content_hash:
            raise UserError(
                f"{self.path}: content hash is {found[:12]}..., the manifest says {self.content_hash[:12]}...; "
                "the files were changed or damaged: delete the folder and pack it again"
            )
        for split in SPLITS:
            labels = self.labels(split)
            if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise UserError(
                    f"{self.path}: labels in {split} that are no class's; delete the folder and pack it again"
                )

    def _file(self, split: str, what: str) -> Path:
        return array_file(self.path, split, what)

    def _tensor(self, file: Path, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        import torch

        if shape[0] == 0:  # an empty region cannot be mapped
            return torch.from_numpy(np.zeros(shape, np.dtype(dtype)))
        try:
            array: np.ndarray[Any, Any] = np.load(file, mmap_mode="c", allow_pickle=False)
        except OSError as error:
            raise UserError(f"{file}: {remedy(error)}") from None
        except ValueError:
            raise UserError(f"{file}: damaged since it was opened; delete the folder and pack the data again") from None
        return torch.from_numpy(array)


def verify_once(store: Store) -> None:
    """Read every byte of a store unless this process did so and no file has changed since. Raises as `Store.verify`.

    A change is told by inode, length and the times of the file, the last of which no program can set.
    """
    found: list[Any] = [str(store.path.resolve()), repr(store.manifest)]
    for split in SPLITS:
        for what in ("images", "labels") if store.labelled else ("images",):
            with suppress(OSError):  # `Store.verify` says so
                it = array_file(store.path, split, what).stat()
                found += [it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns]
    if (key := tuple(found)) not in _verified:
        store.verify()
        _verified.add(key)


def is_store(path: str | Path) -> bool:
    """Tell whether folder `path` is a packed store, or what damage left of one, which then fails to open."""
    try:
        folder = usable_path(path)
        if array_file(folder, "train", "images").is_file():
            return True
        with open_file(folder / MANIFEST) as stream:
            return b'"unstir_store"' in stream.read()
    except (OSError, UserError):
        return False


def array_file(folder: Path, split: str, what: str) -> Path:
    """Name the file of one array; `what` is "images" or "labels"."""
    return folder / f"{split}.{what}.npy"


def array_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Write the 128-byte NumPy header (format 1.0) of a C-ordered array."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    magic = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return magic + text.ljust(HEADER_BYTES - 11).encode("ascii") + b"\n"


def content_hash(folder: Path, shape: tuple[int, int, int], classes: Sequence[str], counts: dict[str, int]) -> str:
    """Hash a store's arrays: SHA-256 over shape, classes and counts as JSON, then the bytes of each array."""
    digest = hashlib.sha256(json.dumps([shape, list(classes), [counts[s] for s in SPLITS]]).encode())
    for split in SPLITS:
        for what in ("images", "labels") if classes else ("images",):
            for block in _blocks(array_file(folder, split, what)):
                digest.update(block)
    return digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    try:
        with open_file(file) as stream:
            stream.seek(HEADER_BYTES)
            while block := stream.read(_BLOCK):
                yield block
    except OSError as error:
        raise UserError(f"{file}: {remedy(error)}") from None


def _known(split: str) -> str:
    if split not in SPLITS:
        raise UserError(f"split={split!r} is unknown; use one of {', '.join(SPLITS)}")
    return split


def _check_array(file: Path, descr: str, shape: tuple[int, ...]) -> None:
    expected = HEADER_BYTES + math.prod(shape) * np.dtype(descr).itemsize
    try:
        with open_file(file) as stream:
            header = stream.read(HEADER_BYTES)
            length = os.fstat(stream.fileno()).st_size
    except FileNotFoundError:
        raise UserError(f"{file}: missing; delete the folder and pack the data again") from None
    except OSError as error:
        raise UserError(f"{file}: {remedy(error)}") from None
    if length != expected:
        what = "truncated" if length < expected else "too long"
        raise UserError(f"{file}: {what}, {length} bytes where {expected} are due; delete the folder and pack again")
    if header != array_header(descr, shape):
        raise UserError(
            f"{file}: its header differs from the manifest's {list(shape)}; delete the folder and pack again"
        )
