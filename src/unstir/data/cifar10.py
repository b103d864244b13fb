"""CIFAR-10, known by name, from its official archives.

60,000 colour images of 32x32 pixels in ten classes (Krizhevsky 2009).
The binary archive (downloaded on request) holds records of 1 label byte and 3,072 pixel bytes, colour plane by plane,
which is [C, H, W] already. The python archive holds pickles; a separate process turns them into the same records
(see unpickle.py). Either is known by the folder of its first members and hashed before any of them is read, as a
stream by its exact name: nothing is unpacked. Train is data_batch_1 to 5 in order, held out is test_batch.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from unstir.data.disk import checked_sha256, fetch, file_sha256, tar_errors
from unstir.data.images import Shape
from unstir.data.source import Chunk, Options, Plan, Source, chunk_ranges, chunk_rows
from unstir.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
SIDE = 32

_RECORD = 1 + 3 * SIDE * SIDE
_FOLDER = "cifar-10-batches-bin"
_BATCHES = (*(f"{_FOLDER}/data_batch_{i}.bin" for i in range(1, 6)), f"{_FOLDER}/test_batch.bin")
_META = f"{_FOLDER}/batches.meta.txt"
_PYTHON_FOLDER = "cifar-10-batches-py"
_LOOKED_AT = 8  # members


def is_cifar(archive: Path) -> bool:
    """Whether a .tar.gz is one of the archives, by the names of its first members."""
    folders: list[str] = []
    with suppress(OSError, UserError), tar_errors(archive), tarfile.open(archive, "r:gz") as tar:
        folders += (member.name.split("/")[0] for member in islice(tar, _LOOKED_AT))
    return not {_FOLDER, _PYTHON_FOLDER}.isdisjoint(folders)


class _Contents:
    """What an archive holds. ``streams`` give, end to end, all records, train first."""

    def __init__(self, classes: Iterable[str], num_train: int, num_held_out: int, streams: Iterable[IO[bytes]]) -> None:
        self.classes, self.num_train, self.total = tuple(classes), num_train, num_train + num_held_out
        self.records = chain.from_iterable(iter(partial(stream.read, _RECORD), b"") for stream in streams)


class CifarSource(Source):
    """One official archive; `archive` None means the binary one, downloaded into the folder that the options name."""

    kind = "cifar10"

    def __init__(self, archive: Path | None, options: Options) -> None:
        super().__init__(options, SIDE, 3)
        self.archive = archive
        self.expected = (options.sha256.lower(),) if options.sha256 else (BINARY_SHA256, PYTHON_SHA256)

    def stamp(self) -> str:
        """Identify the archive by length and time, or by the hash to come if it is to be downloaded."""
        if self.archive is None:
            return self.expected[0]
        status = self.archive.stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def source_hash(self, shape: Shape) -> str:
        """Hash the archive, unless it is to be downloaded."""
        return self.expected[0] if self.archive is None else file_sha256(self.archive)

    def plan(self, staging: Path) -> Plan:
        """Download if need be, check the hash, count the records. Raises UserError."""
        archive = self.archive
        if archive is None:
            archive = self.options.download_dir / URL.rpartition("/")[2]
            fetch(URL, archive, self.expected[0])
        sha256 = checked_sha256(archive, *self.expected)
        shape = (self.channels, self.size or SIDE, self.size or SIDE)
        with _opened(archive) as contents:
            classes, total = contents.classes, contents.total

        def chunks() -> Generator[Chunk, None, None]:
            with _opened(archive) as contents:
                for split, first, stop in chunk_ranges(total, contents.num_train, chunk_rows(shape)):
                    data = b"".join(islice(contents.records, stop - first))
                    if len(data) < (stop - first) * _RECORD:
                        raise UserError("", archive, "ends before its last record", f"fetch {URL} again")
                    yield self._chunk(split, data, len(classes))

        return Plan(shape, classes, total, "the official test batch", chunks, source_hash=sha256)

    def _chunk(self, split: str, data: bytes, num_classes: int) -> Chunk:
        records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
        labels = records[:, 0].astype(np.int64)
        if (most := labels.max()) >= num_classes:
            mend = "fetch the archive again"
            raise UserError("", self.kind, f"has label {most} in {split}, but {num_classes} class names", mend)
        pixels: NDArray[np.uint8] = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
        if (self.channels, self.size) != (3, SIDE):
            pixels = np.stack([self.resized(image.transpose(1, 2, 0), "CIFAR-10's images") for image in pixels])
        return Chunk(split, pixels, labels)


@contextmanager
def _opened(archive: Path) -> Iterator[_Contents]:
    """Open an archive of either kind. Raises UserError when it is not what it should be."""
    with tar_errors(archive), tarfile.open(archive, "r:gz") as tar:
        members = tar.getmembers()
        if not any(m.name.startswith(_PYTHON_FOLDER + "/") for m in members):
            yield _binary(archive, tar, members)
            return
    with _python(archive) as contents:
        yield contents


def _binary(archive: Path, tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> _Contents:
    files, mend = dict[str, tarfile.TarInfo](), f"fetch {URL} again"
    for member in members:
        if member.name in (_META, *_BATCHES):
            if member.name in files or not member.isreg():
                raise UserError("", archive, f"holds {member.name} not as one plain file", mend)
            files[member.name] = member
    for name in (_META, *_BATCHES):
        if name not in files or (name != _META and files[name].size % _RECORD):
            raise UserError("", archive, f"lacks {name} in whole records of {_RECORD} bytes", mend)
    meta, *batches = (stream for name in (_META, *_BATCHES) if (stream := tar.extractfile(files[name])))
    names = (line.strip() for line in meta.read(1 << 16).decode("utf-8", "replace").splitlines())
    *train, held_out = (files[name].size // _RECORD for name in _BATCHES)
    return _Contents(filter(None, names), sum(train), held_out, batches)


@contextmanager
def _python(archive: Path) -> Iterator[_Contents]:
    command = [sys.executable, "-I", str(Path(__file__).with_name("unpickle.py")), str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        try:
            if not (line := process.stdout.readline()):
                reason = process.stderr.read().decode(errors="replace").strip().splitlines() or ["it ended early"]
                raise UserError("", archive, f"is refused: {reason[-1]}", f"use the binary archive, {URL}")
            head = json.loads(line)
            yield _Contents(head["classes"], head["train"], head["held_out"], [process.stdout])
        finally:
            process.kill()
