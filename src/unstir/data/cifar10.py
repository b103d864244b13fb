"""CIFAR-10 (Krizhevsky 2009) from its official archives, or from the folder that one was unpacked to.

The binary archive holds records of 1 label byte and 3,072 pixel bytes, [C, H, W]; the python archive holds pickles,
which become the same records. Either is hashed before a member is read; nothing is unpacked.
"""

import tarfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstir.data.disk import check_sha256, fetch, tar_errors
from unstir.data.images import Shape
from unstir.data.records import Records, Rows
from unstir.data.source import Options, Plan, Source
from unstir.data.unpickle import batch, class_names
from unstir.errors import UserError
from unstir.parts import source

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
_FIRST = "data_batch_1", "data_batch_1.bin"  # of an unpacked folder
_LOOKED_AT = 8  # members


def cifar_in(path: Path) -> Path | None:
    """The archive or unpacked folder that a path is, or holds; None where there is none."""
    if path.is_dir():
        places = path, path / _FOLDER, path / _PYTHON_FOLDER
        return next((place for place in places for name in _FIRST if (place / name).is_file()), None)
    folders: list[str] = []
    with suppress(OSError, UserError), tar_errors(path), tarfile.open(path, "r:gz") as tar:
        folders += (member.name.split("/")[0] for member in islice(tar, _LOOKED_AT))
    return path if not {_FOLDER, _PYTHON_FOLDER}.isdisjoint(folders) else None


class CifarSource(Records):
    """One official archive or its unpacked folder; None is the binary one, which is downloaded."""

    kind = "cifar10"
    hashes_files = has_names = True

    def __init__(self, options: Options, archive: Path | None = None) -> None:
        super().__init__(options, [archive] if archive else [], (_SIDE, _SIDE), held_out=None)
        self.archive, self._place = archive, archive or options.download_dir / URL.rpartition("/")[2]
        if archive and archive.is_dir():
            self.files = list(_unpacked(archive).values())
        self.expected = (options.sha256.lower(),) if options.sha256 else (BINARY_SHA256, PYTHON_SHA256)

    def stamp(self) -> str:
        """As other files; an archive that is to be downloaded, by its hash."""
        return super().stamp() if self.archive else self.expected[0]

    def source_hash(self, shape: Shape) -> str:
        """As other files; of an archive that is to be downloaded, its hash."""
        return super().source_hash(shape) if self.archive else self.expected[0]

    def plan(self, staging: Path) -> Plan:
        """Download if need be, check the hash, count the records. Raises UserError."""
        if self.archive is None:
            fetch(URL, self._place, self.expected[0])
        if self._place.is_file():
            check_sha256(self._place, *self.expected)
        return super().plan(staging)

    def rows(self) -> list[Rows]:
        """The records of the training batches, and of the test batch."""
        classes, records, num_train = _read(self._place)
        parts = {"train": records[:num_train], "test": records[num_train:]}
        images = {split: part[:, 1:].reshape(-1, 3, _SIDE, _SIDE) for split, part in parts.items()}
        return [Rows(k, k, parts[k][:, 0].tolist(), images[k].__getitem__, classes) for k in parts]


@source
def cifar10() -> type[Source[Any]]:
    """The archive that its authors publish, downloaded and compared with its hash."""
    return CifarSource


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
    """The class names, all records, uint8 [N, 3073], train first, and how many are of train."""
    files = _content(archive)
    is_python = any(name in files for name in _PYTHON_NAMES)
    file, *batches = _PYTHON_NAMES if is_python else _NAMES
    parts = list[NDArray[np.uint8]]()
    try:
        names = class_names(files[file]) if is_python else files[file].decode("utf-8", "replace").splitlines()
        classes = tuple(filter(None, map(str.strip, names)))
        for file in batches:
            data = batch(files[file]) if is_python else files[file]
            parts.append(np.frombuffer(data, np.uint8).reshape(-1, _RECORD))
            if parts[-1][:, 0].max(initial=0) >= len(classes):
                raise ValueError("a label of no class")
    except Exception:  # a damaged pickle raises anything at all
        raise UserError("", archive, f"has no {file}, or it is damaged or no plain file", f"use {URL}") from None
    return classes, np.concatenate(parts), sum(map(len, parts[:-1]))
