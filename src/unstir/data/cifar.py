"""CIFAR-10 from its official archives: 60,000 colour images of 32x32 pixels in ten classes (Krizhevsky 2009).

The binary archive (downloaded on request) holds records of 1 label byte and 3,072 pixel bytes, colour plane by plane,
which is [C, H, W] already. The python archive holds pickles; a separate process turns them into the same records
(see unpickle.py). Either is hashed before a byte of it is interpreted, and its members are read as streams
by their exact names: nothing is extracted. Train is data_batch_1 to 5 in order, held out is test_batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unstir.data.download import fetch, file_sha256
from unstir.data.source import Chunk, Options, Plan, Source, chunk_rows
from unstir.errors import UserError, remedy
from unstir.progress import Progress

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
SIDE = 32

_RECORD = 1 + 3 * SIDE * SIDE
_FOLDER = "cifar-10-batches-bin"
_TRAIN = tuple(f"{_FOLDER}/data_batch_{i}.bin" for i in range(1, 6))
_TEST = f"{_FOLDER}/test_batch.bin"
_META = f"{_FOLDER}/batches.meta.txt"
_PYTHON_FOLDER = "cifar-10-batches-py"


class _Contents(NamedTuple):
    classes: tuple[str, ...]
    num_train: int
    num_held_out: int
    streams: Generator[IO[bytes], None, None]  # end to end: all records, train first


class CifarSource(Source):
    """One official archive; `archive` None means the binary one, downloaded into the folder given to `plan`."""

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

    def source_hash(self, shape: tuple[int, int, int]) -> str:
        """See Source."""
        return self.expected[0] if self.archive is None else file_sha256(self.archive)

    def plan(self, download_dir: Path, progress: Progress | None) -> Plan:
        """Download if need be, check the hash, count the records. Raises UserError."""
        archive = self.archive
        if archive is None:
            archive = download_dir / URL.rpartition("/")[2]
            fetch(URL, archive, self.expected[0], progress)
        found = file_sha256(archive)
        if found not in self.expected:
            raise UserError(
                f"{archive}: SHA-256 is {found}, expected {' or '.join(self.expected)}; fetch {URL} again, "
                f"or vouch for this file with {self.spelling('sha256', found)}"
            )
        shape = (self.channels, self.size or SIDE, self.size or SIDE)
        with _opened(archive) as contents:
            classes, total = contents.classes, contents.num_train + contents.num_held_out

        def chunks(start: int) -> Generator[Chunk, None, None]:
            with _opened(archive) as contents:
                yield from self._chunks(contents, shape, start)

        return Plan(shape, classes, total, "the official test batch", chunks, source_hash=found)

    def _chunks(self, contents: _Contents, shape: tuple[int, int, int], start: int) -> Generator[Chunk, None, None]:
        position = 0
        with closing(_concatenated(contents.streams)) as read:
            next(read)
            for split, count in (("train", contents.num_train), ("held_out", contents.num_held_out)):
                end = position + count
                while position < end:
                    rows = min(chunk_rows(shape), end - position)
                    records = np.frombuffer(read.send(rows * _RECORD), np.uint8).reshape(rows, _RECORD)
                    position += rows
                    if position > start:
                        yield self._chunk(split, records, position, len(contents.classes))

    def _chunk(self, split: str, records: NDArray[np.uint8], stop: int, num_classes: int) -> Chunk:
        labels = records[:, 0].astype(np.int64)
        if labels.max() >= num_classes:
            raise UserError(
                f"{self.kind}: label {labels.max()} in {split}, but {num_classes} class names; the archive is damaged"
            )
        pixels = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
        if (self.channels, self.size) != (3, SIDE):
            images = (np.ascontiguousarray(image.transpose(1, 2, 0)) for image in pixels)
            pixels = np.stack([self.resized(image, "CIFAR-10's images") for image in images])
        return Chunk(split, pixels, labels, stop)


def _concatenated(streams: Iterator[IO[bytes]]) -> Generator[bytes, int, None]:
    """Read exactly the number of bytes sent, across the ends of streams."""
    data, wanted = b"", 0
    wanted = yield b""
    for stream in streams:
        while block := stream.read(wanted - len(data)):
            data += block
            if len(data) == wanted:
                wanted = yield data
                data = b""
    raise UserError("the archive ended before its last record; fetch it again")


@contextmanager
def _opened(archive: Path) -> Iterator[_Contents]:
    """Open an archive of either kind. Raises UserError when it is not what it should be."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = tar.getmembers()
            if not any(m.name.startswith(_PYTHON_FOLDER + "/") for m in members):
                yield _binary(archive, tar, members)
                return
    except UserError:
        raise
    except OSError as error:
        why = remedy(error) if error.errno else "not a readable tar.gz archive; fetch it again"
        raise UserError(f"{archive}: {why}") from None
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, RecursionError, MemoryError):
        raise UserError(f"{archive}: not a readable tar.gz archive; fetch it again") from None
    with _python(archive) as contents:
        yield contents


def _binary(archive: Path, tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> _Contents:
    found: dict[str, tarfile.TarInfo] = {}
    for member in members:
        if member.name in (_META, *_TRAIN, _TEST):
            if member.name in found or not member.isreg():
                raise UserError(f"{archive}: {member.name} is not one plain file; fetch {URL} again")
            found[member.name] = member
    for name in (_META, *_TRAIN, _TEST):
        if name not in found:
            raise UserError(f"{archive}: {name} is missing, so it is no CIFAR-10 archive; fetch {URL}")
        if name != _META and found[name].size % _RECORD:
            raise UserError(f"{archive}: {name} does not hold whole records of {_RECORD} bytes; fetch {URL} again")
    meta = _stream(tar, found[_META]).read(1 << 16).decode("utf-8", "replace")
    counts = {name: found[name].size // _RECORD for name in (*_TRAIN, _TEST)}
    streams = (_stream(tar, found[name]) for name in (*_TRAIN, _TEST))
    classes = tuple(line.strip() for line in meta.splitlines() if line.strip())
    return _Contents(classes, sum(counts[name] for name in _TRAIN), counts[_TEST], streams)


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file
    return stream


@contextmanager
def _python(archive: Path) -> Iterator[_Contents]:
    program = Path(__file__).with_name("unpickle.py")
    with subprocess.Popen(
        [sys.executable, "-I", str(program), str(archive)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        try:
            line = process.stdout.readline()
            if not line:
                reason = process.stderr.read().decode(errors="replace").strip().splitlines() or ["it ended early"]
                raise UserError(f"{archive}: refused, {reason[-1]}; use the binary archive, {URL}")
            head = json.loads(line)
            streams = (stream for stream in (process.stdout,))
            yield _Contents(tuple(head["classes"]), head["train"], head["held_out"], streams)
        finally:
            process.kill()
