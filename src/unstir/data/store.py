"""A packed data set: one folder of plain arrays that training maps into memory, and a manifest that says what they are.

    manifest.json            everything below in words and figures, and a hash over them: equal input gives equal bytes
    origin.json              where it was packed from, to know that source again; nothing rests on it
    train.images.npy         uint8 [N, C, H, W], 0..255, C order; or float32 in units of the data, where NaN is missing
    train.labels.npy         int64 [N], absent when the data has no labels
    train.conditions.npy     float32 [N, K] or [N, C', H, W], a vector or an image that describes each, or absent
    held_out.images.npy      the images training never sees, kept for likelihood, distances and memorisation
    held_out.labels.npy, held_out.conditions.npy

Every array starts with a NumPy header of exactly 128 bytes: rows can be appended before their number is known, and a
file's length alone tells whether it is whole. While it is packed, a store grows in .NAME.packing/store,
which is renamed to NAME at the very end; what a killed packing leaves is removed by the next one.
"""

import hashlib
import json
import math
import mmap
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self

import numpy as np

import unstir.data.manifest as manifests
from unstir.data.disk import file_errors, held, open_file, sync_folder, usable_path
from unstir.data.images import Shape
from unstir.data.manifest import MANIFEST, PACK_AGAIN, SPLITS, Note, Origin, sealed, write_origin
from unstir.errors import UserError, printable

if TYPE_CHECKING:  # torch takes seconds to import and decoding workers do without it
    import torch

    from unstir.data.source import Chunk
    from unstir.pixels import Scale

HEADER_BYTES = 128
LARGE = 1 << 28  # bytes of pixels that may not be in memory
_PRIVATE: dict[str, Any] = {"access": mmap.ACCESS_COPY}
if sys.platform == "linux":  # no memory is set aside for pages that might be written, or no file larger than it maps
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)}


class Array(NamedTuple):
    """One array of a store, C-ordered: its file, the type of its values, and its shape."""

    file: Path
    descr: str
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        """Bytes of the whole file."""
        return HEADER_BYTES + math.prod(self.shape) * np.dtype(self.descr).itemsize

    @property
    def header(self) -> bytes:
        """The 128-byte NumPy header (format 1.0)."""
        text = f"{{'descr': {self.descr!r}, 'fortran_order': False, 'shape': {self.shape!r}, }}"
        magic = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
        return magic + text.ljust(HEADER_BYTES - 11).encode("ascii") + b"\n"

    def check(self) -> None:
        """Raise UserError unless the file is there, as long as it should be, and begins with its header."""
        with file_errors(self.file), suppress(FileNotFoundError), open_file(self.file) as stream:
            if (stream.read(HEADER_BYTES), os.fstat(stream.fileno()).st_size) == (self.header, self.length):
                return
        raise UserError("", self.file, f"is missing, or damaged: it is not {list(self.shape)}", PACK_AGAIN)

    def load(self) -> "torch.Tensor":
        """Map the values into memory, copy-on-write. Raises UserError."""
        import torch

        self.check()
        if self.shape[0] == 0:  # an empty region cannot be mapped
            return torch.from_numpy(np.zeros(self.shape, self.descr))
        with file_errors(self.file), open_file(self.file) as stream:
            mapped = mmap.mmap(stream.fileno(), 0, **_PRIVATE)
        return torch.from_numpy(np.ndarray(self.shape, self.descr, mapped, HEADER_BYTES))


def arrays(folder: Path, about: Mapping[str, Any]) -> dict[tuple[str, str], Array]:
    """The arrays of a store with the manifest ``about``, in order, by (split, "images", "labels" or "conditions")."""
    kinds: dict[str, tuple[str, Sequence[int]]] = {"images": ("<f4" if about["scale"] else "|u1", about["shape"])}
    if about["classes"]:
        kinds["labels"] = "<i8", ()
    if about["condition"]:
        kinds["conditions"] = "<f4", about["condition"]
    return {
        (split, name): Array(folder / f"{split}.{name}.npy", kind, (about["counts"][split], *shape))
        for split in SPLITS
        for name, (kind, shape) in kinds.items()
    }


@dataclass(frozen=True)
class Store:
    """A finished data set on disk; make one with `pack`, open one with `Store.open`."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the store in `path`, whole by its manifest; `verify` checks its bytes. Raises UserError."""
        path = usable_path(path)
        store = cls(path, manifests.read(path))
        for array in store.arrays().values():
            array.check()
        return store

    @property
    def shape(self) -> Shape:
        """The shape (C, H, W) of every image."""
        channels, height, width = self.manifest["shape"]
        return channels, height, width

    @property
    def scale(self) -> "Scale":
        """How the values of the images become those in [-1, 1]."""
        from unstir.pixels import Scale

        return Scale(*zip(*self.manifest["scale"], strict=True))

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
        """SHA-256 (hex) over shape, classes, counts, scale, values and labels, as it was packed."""
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

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each split."""
        return {split: self.count(split) for split in SPLITS}

    def count(self, split: str) -> int:
        """Count the images of `split`, "train" or "held_out". Raises UserError for another name."""
        if split not in SPLITS:
            raise UserError("split", split, "is unknown", f"use one of {', '.join(SPLITS)}")
        return int(self.manifest["counts"][split])

    @property
    def is_large(self) -> bool:
        """Whether its pixels take `LARGE` bytes or more."""
        size = 4 if self.manifest["scale"] else 1
        return size * math.prod(self.shape) * sum(map(self.count, SPLITS)) >= LARGE

    def arrays(self) -> dict[tuple[str, str], Array]:
        """The arrays, by (split, "images", "labels" or "conditions")."""
        return arrays(self.path, self.manifest)

    def images(self, split: str) -> "torch.Tensor":
        """Map the images of `split` into memory: [N, C, H, W], uint8 0..255, or float32 in units of the data.

        Nothing is read until it is used; NaN is a value that is missing, and `scale` maps to [-1, 1]. Writing to the
        tensor changes this process alone, never the file. UserError for an unknown split or a file that has gone.
        """
        self.count(split)
        return self.arrays()[split, "images"].load()

    def labels(self, split: str) -> "torch.Tensor | None":
        """Map the labels of `split` into memory: int64 [N], 0..len(classes)-1; None when the data has none."""
        self.count(split)
        return self.arrays()[split, "labels"].load() if self.labelled else None

    def conditions(self, split: str) -> "torch.Tensor | None":
        """Map the conditions of `split` into memory: float32 [N, K] or [N, C', H, W]; None when the data has none."""
        self.count(split)
        return self.arrays()[split, "conditions"].load() if self.manifest["condition"] else None

    def together(self, name: str) -> "torch.Tensor | None":
        """The "images", "labels" or "conditions" of both splits in order; None where it has none."""
        import torch

        parts = [array.load() for (_, kind), array in self.arrays().items() if kind == name]
        return torch.cat(parts) if parts else None

    def verify(self) -> None:
        """Read every byte, once for this object, and compare with `content_hash`. UserError where they differ."""
        self._read  # noqa: B018

    @cached_property
    def _read(self) -> None:
        if content_hash(self.path, self.manifest) != self.content_hash:
            raise UserError("", self.path, "was changed or damaged: its content has another hash", PACK_AGAIN)
        for split in SPLITS:
            labels = self.labels(split)
            if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise UserError("", self.path, f"has labels in {split} that are of no class", PACK_AGAIN)


def is_store(path: str | Path) -> bool:
    """Whether folder `path` is a packed store, or what damage left of one, which fails to open."""
    try:
        folder = usable_path(path)
        if (folder / "train.images.npy").is_file():
            return True
        with open_file(folder / MANIFEST) as stream:
            return b'"unstir_store"' in stream.read()
    except (OSError, UserError):
        return False


def content_hash(folder: Path, about: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over a store's shape, classes, counts and what else it has as JSON, then all bytes."""
    scale, condition = about["scale"], about["condition"]
    further = [*([scale] if scale else []), *([{"condition": condition}] if condition else [])]
    described = [about["shape"], about["classes"], [about["counts"][split] for split in SPLITS], *further]
    digest = hashlib.sha256(json.dumps(described).encode())
    for array in arrays(folder, about).values():
        with file_errors(array.file), open_file(array.file) as stream:
            stream.seek(HEADER_BYTES)
            hashlib.file_digest(stream, lambda: digest)  # from there on
    return digest.hexdigest()


class Ahead:
    """Asks the system for rows of an array, which it then reads aside; nothing is copied, nothing waits."""

    def __init__(self, array: Array) -> None:
        with file_errors(array.file), open_file(array.file) as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._row = (array.length - HEADER_BYTES) // array.shape[0]

    def __call__(self, rows: Iterable[int]) -> None:
        """Begin to read rows, numbers in 0..N-1, where the system takes such advice."""
        advice: Any = getattr(mmap, "MADV_WILLNEED", None)
        for row in rows if advice is not None else ():
            first = HEADER_BYTES + row * self._row
            start = first - first % mmap.PAGESIZE
            self._map.madvise(advice, start, first + self._row - start)


class Writer:
    """Appends chunks to the arrays of a store in the folder ``store``, made here, within a ``with`` block.

    ``about`` has the shape, classes, condition and scale of its manifest; a scale may be another one until `finish`.
    """

    def __init__(self, store: Path, about: dict[str, Any]) -> None:
        self.rows = dict.fromkeys(SPLITS, 0)
        self.store, self._about = store, {**about, "counts": self.rows}
        self.done = 0  # images packed or refused
        self.refused, self.notes, self.digests = list[tuple[str, str]](), list[tuple[str, str]](), list[str]()
        self.low = np.full(about["shape"][0], np.inf)  # of the training values there
        self.high = -self.low

    def __enter__(self) -> Self:
        self.store.mkdir()
        self._files = {key: array.file.open("wb") for key, array in self.arrays().items()}
        for key, array in self.arrays().items():
            self._files[key].write(array.header)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with suppress(OSError):  # a full disk again, already reported
                file.close()

    def arrays(self) -> dict[tuple[str, str], Array]:
        """The arrays with all that was written."""
        return arrays(self.store, self._about)

    def write(self, chunk: "Chunk") -> None:
        """Append one chunk."""
        group = chunk.group
        self._files[chunk.split, "images"].write(np.ascontiguousarray(group.pixels).data)
        if chunk.labels is not None:
            self._files[chunk.split, "labels"].write(chunk.labels.astype("<i8").data)
        if chunk.conditions is not None:
            self._files[chunk.split, "conditions"].write(np.ascontiguousarray(chunk.conditions, "<f4").data)
        if self._about["scale"] and chunk.split == "train" and group.kept:
            self.low = np.fmin(self.low, np.fmin.reduce(group.pixels, (0, 2, 3)))
            self.high = np.fmax(self.high, np.fmax.reduce(group.pixels, (0, 2, 3)))
        self.rows[chunk.split] += len(group.kept)
        self.done += len(group.kept) + len(group.refused)
        self.refused += group.refused
        self.notes += group.notes
        self.digests.append(group.digest)

    def finish(self, scale: list[list[float]]) -> str:
        """Write the headers, now that the lengths are known, and sync all of it; the content hash."""
        for key, array in self.arrays().items():
            self._files[key].seek(0)
            self._files[key].write(array.header)
            _sync(self._files[key])
        return content_hash(self.store, {**self._about, "scale": scale})


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """An empty, locked folder where the store of `out` is built, gone after the block; UserError where in use."""
    staging = out.parent / f".{out.name}.packing"
    out.parent.mkdir(parents=True, exist_ok=True)
    busy = UserError("", out, "is packed by another process", "wait for it or choose another folder")
    with held(staging.with_name(f"{staging.name}.lock"), busy):
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed packing
        try:
            staging.mkdir()
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def publish(store: Path, out: Path, manifest: dict[str, Any], origin: Origin) -> None:
    """Write origin and manifest, and give the finished store its name in one rename."""
    write_origin(store, origin)
    with (store / MANIFEST).open("wb") as file:
        file.write(sealed(manifest))
        _sync(file)
    sync_folder(store)
    if out.is_dir():
        out.rmdir()  # empty, the caller has looked
    store.rename(out)
    sync_folder(out.parent)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
