"""CIFAR-10 (Krizhevsky 2009) from its official archives, or from the folder that one was unpacked to.

The binary archive holds records of 1 label byte and 3,072 pixel bytes, [C, H, W]; the python archive holds pickles,
which become the same records. Either is hashed before a member is read; nothing is unpacked.

A pickle is a program that may call any function it can name. Here it can name four, and they are stand-ins: none
touches anything but its own arguments, so the real numpy is never built from the file's bytes. The unpickler is the
one in Python, whose memo is a dictionary: a large number in a file reserves no memory.
"""

import io
import pickle
import tarfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstir.data.disk import checked_sha256, fetch, tar_errors
from unstir.data.images import Shape
from unstir.data.records import Records, Rows
from unstir.data.source import Options, Plan
from unstir.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_SIDE = 32

_RECORD = 1 + 3 * _SIDE * _SIDE
_FOLDER = "cifar-10-batches-bin"
_PYTHON_FOLDER = "cifar-10-batches-py"
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_NAMES = (f"{_FOLDER}/batches.meta.txt", *(f"{_FOLDER}/{name}.bin" for name in _BATCHES))
_PYTHON_NAMES = (f"{_PYTHON_FOLDER}/batches.meta", *(f"{_PYTHON_FOLDER}/{name}" for name in _BATCHES))
_MEND = f"fetch {URL} again"
_FIRST = "data_batch_1", "data_batch_1.bin"  # of an unpacked folder
_LOOKED_AT = 8  # members


def cifar_in(path: Path) -> Path | None:
    """The archive or the unpacked folder that a path is, or the folder inside it; None where it is neither."""
    if path.is_dir():
        places = path, path / _FOLDER, path / _PYTHON_FOLDER
        return next((place for place in places for name in _FIRST if (place / name).is_file()), None)
    folders: list[str] = []
    with suppress(OSError, UserError), tar_errors(path), tarfile.open(path, "r:gz") as tar:
        folders += (member.name.split("/")[0] for member in islice(tar, _LOOKED_AT))
    return path if not {_FOLDER, _PYTHON_FOLDER}.isdisjoint(folders) else None


class CifarSource(Records):
    """One official archive, or its unpacked folder; None is the binary one, downloaded to where the options say."""

    kind = "cifar10"
    is_published = True

    def __init__(self, archive: Path | None, options: Options) -> None:
        super().__init__(options, [archive] if archive else [], (_SIDE, _SIDE), held_out=None)
        self.archive, self._place = archive, archive or options.download_dir / URL.rpartition("/")[2]
        if archive and archive.is_dir():
            self.files = list(_unpacked(archive).values())
        self.expected = (options.sha256.lower(),) if options.sha256 else (BINARY_SHA256, PYTHON_SHA256)

    def stamp(self) -> str:
        """As other files, or by the hash to come if the archive is to be downloaded."""
        return super().stamp() if self.archive else self.expected[0]

    def source_hash(self, shape: Shape) -> str:
        """Hash the archive, unless it is to be downloaded, or the files of a folder."""
        return super().source_hash(shape) if self.archive else self.expected[0]

    def plan(self, staging: Path) -> Plan:
        """Download if need be, check the hash, count the records. Raises UserError."""
        if self.archive is None:
            fetch(URL, self._place, self.expected[0])
        if self._place.is_file():
            checked_sha256(self._place, *self.expected)
        return super().plan(staging)

    def rows(self) -> list[Rows]:
        """The records of the training batches, and those of the test batch."""
        classes, records, num_train = _read(self._place)
        parts = {"train": records[:num_train], "test": records[num_train:]}
        images = {split: part[:, 1:].reshape(-1, 3, _SIDE, _SIDE) for split, part in parts.items()}
        return [Rows(k, k, parts[k][:, 0].tolist(), images[k].__getitem__, classes) for k in parts]


def _unpacked(folder: Path) -> dict[str, Path]:
    names = _PYTHON_NAMES if (folder / _FIRST[0]).is_file() else _NAMES
    return {name: file for name in names if (file := folder / name.rpartition("/")[2]).is_file()}


def _content(archive: Path) -> dict[str, bytes]:
    if archive.is_dir():
        return {name: file.read_bytes() for name, file in _unpacked(archive).items()}
    with tar_errors(archive), tarfile.open(archive, "r:gz") as tar:
        members = {member.name: member for member in tar if member.isreg()}
        streams = {name: tar.extractfile(members[name]) for name in members if name in (*_NAMES, *_PYTHON_NAMES)}
        return {name: stream.read() for name, stream in streams.items() if stream}  # in the order of the archive


def _read(archive: Path) -> tuple[tuple[str, ...], NDArray[np.uint8], int]:
    """The class names, all records [N, 3073], train first, and how many are of train. Raises UserError."""
    files = _content(archive)
    is_python = any(name in files for name in _PYTHON_NAMES)
    names = _PYTHON_NAMES if is_python else _NAMES
    if missing := [name for name in names if name not in files]:
        there = ", ".join(sorted(files)) or "none of them"
        raise UserError("", archive, f"lacks {missing[0]} as a plain file; it has {there}", _MEND)
    if is_python:
        files = {name: _unpickled(archive, name, data) for name, data in files.items()}
    meta, *batches = (files[name] for name in names)
    if odd := [name for name, data in zip(names[1:], batches, strict=True) if len(data) % _RECORD]:
        raise UserError("", archive, f"holds {odd[0]}, which is not in whole records of {_RECORD} bytes", _MEND)
    classes = tuple(filter(None, map(str.strip, meta.decode("utf-8", "replace").splitlines())))
    records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, _RECORD)
    if (most := records[:, 0].max(initial=0)) >= len(classes):
        raise UserError("", archive, f"has label {most}, but {len(classes)} class names", _MEND)
    return classes, records, len(records) - len(batches[-1]) // _RECORD


def _unpickled(archive: Path, name: str, data: bytes) -> bytes:
    try:
        return "\n".join(_class_names(data)).encode() if name == _PYTHON_NAMES[0] else _batch(data)
    except Exception:  # a damaged pickle raises anything at all
        raise UserError("", archive, f"holds {name}, whose pickle is not CIFAR-10's", f"use {URL}") from None


class _Dtype:
    """Stand-in for numpy.dtype: only unsigned bytes."""

    def __init__(self, code: object, *flags: object) -> None:
        if code not in ("u1", b"u1"):
            raise ValueError("an array of another type than uint8")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which single bytes do not have."""


class _Array:
    """Stand-in for numpy.ndarray: the pixels of images, uint8 [N, 3072]."""

    pixels: NDArray[np.uint8]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _Dtype or fortran or type(data) is not bytes or shape[1:] != (_RECORD - 1,):
            raise ValueError("an array in another layout than the official one")
        self.pixels = np.frombuffer(data, np.uint8).reshape(shape)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),  # which is filled afterwards
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc, unused-ignore]
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ValueError(f"it asks for {module}.{name}, which no CIFAR-10 file needs")
        return _ALLOWED[module, name]


def _load(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data), encoding="bytes").load()


def _batch(data: bytes) -> bytes:
    """The records of a pickled batch, 1 label byte and 3,072 pixel bytes each. Raises some Exception for others."""
    content = _load(data)
    labels = np.frombuffer(bytes(list(content[b"labels"])), np.uint8)
    return np.column_stack((labels, content[b"data"].pixels)).tobytes()


def _class_names(data: bytes) -> list[str]:
    """The names in the pickled batches.meta. Raises some Exception where there are none."""
    return [name.decode("utf-8", "replace") for name in _load(data)[b"label_names"]]
