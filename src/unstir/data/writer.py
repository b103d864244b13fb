"""A store while it is packed: rows are appended and counted in a journal, so that a killed pack continues there.

    .NAME.packing/journal.jsonl   line 1: source and settings; then a line per chunk: position, rows, notes;
                                  each behind a hash of it and of the lines before it
    .NAME.packing/store/          the arrays as they grow, then the manifest; renamed to NAME at the very end

Arrays reach the disk before the journal line that counts them, and whatever lies beyond the last whole line is cut off
when packing continues; so the finished bytes do not depend on how often packing was interrupted.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from unstir.data.disk import sync_folder, take_lock
from unstir.data.images import Shape
from unstir.data.manifest import MANIFEST, SPLITS, Origin, parsed, sealed, write_origin
from unstir.data.source import Chunk, UnfitError
from unstir.data.store import Array, arrays, content_hash, is_store
from unstir.errors import UserError

FLUSH_SECONDS = 0.5  # the most work, in seconds, that a kill can cost


@dataclass
class Progressed:
    """How far a pack has come."""

    position: int = 0
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        """Take in one journal line."""
        self.position, self.rows = line["position"], line["rows"]
        self.refused += [(path, reason) for path, reason in line["refused"]]
        self.notes += [(text, path) for text, path in line["notes"]]
        self.digests += line["digests"]

    def is_sound(self) -> bool:
        """Whether everything taken in has the type and range that `Writer.write` gives it."""
        numbers = [self.position, *(self.rows[split] for split in SPLITS)]
        words = [word for pair in (*self.refused, *self.notes) for word in pair] + self.digests
        return (
            len(self.rows) == len(SPLITS)
            and all(type(number) is int and number >= 0 for number in numbers)
            and all(type(word) is str for word in words)
            and sum(numbers[1:]) + len(self.refused) == self.position
        )


class Writer:
    """Appends chunks to the arrays in `staging`, within a ``with`` block; continues if the journal has the same `head`.

    ``state`` is how far the pack has come. What was not flushed when the block ends is lost.
    """

    def __init__(self, staging: Path, head: dict[str, Any], shape: Shape, labelled: bool) -> None:
        self.store = staging / "store"
        self.state = Progressed()
        self._journal_file, self._head = staging / "journal.jsonl", head
        self._shape, self._labelled = shape, labelled
        self._lines = _Chained()

    def __enter__(self) -> Self:
        if not self._recover():
            self.state, self._lines = Progressed(), _Chained()
            shutil.rmtree(self.store, ignore_errors=True)
            self.store.mkdir()
            self._journal_file.write_bytes(self._lines.line(self._head))
        self._files = {key: _appending(array) for key, array in self.arrays().items()}
        self._journal = self._journal_file.open("ab")
        self._flushed, self._waiting = time.monotonic(), list[bytes]()  # lines of what has not reached the disk
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._files.values(), self._journal):
            with suppress(OSError):  # a full disk again, already reported
                file.close()

    def arrays(self) -> dict[tuple[str, str], Array]:
        """The arrays with all that was written."""
        return arrays(self.store, self._shape, self.state.rows, self._labelled)

    def write(self, chunk: Chunk) -> None:
        """Append one chunk; flushed to disk at least every FLUSH_SECONDS."""
        self._files[chunk.split, "images"].write(np.ascontiguousarray(chunk.pixels).data)
        if chunk.labels is not None:
            self._files[chunk.split, "labels"].write(chunk.labels.astype("<i8").data)
        rows = {**self.state.rows, chunk.split: self.state.rows[chunk.split] + len(chunk.pixels)}
        digests = [chunk.digest] if chunk.digest else []
        line = vars(Progressed(chunk.stop, rows, list(chunk.refused), list(chunk.notes), digests))
        self.state.add(line)
        self._waiting.append(self._lines.line(line))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make everything written so far last, then say so in the journal."""
        for file in self._files.values():
            _sync(file)
        self._journal.writelines(self._waiting)
        _sync(self._journal)
        self._waiting.clear()
        self._flushed = time.monotonic()

    def finish(self, classes: list[str]) -> str:
        """Write the arrays' headers, now that their lengths are known; the content hash."""
        self.flush()
        for key, array in self.arrays().items():
            self._files[key].seek(0)
            self._files[key].write(array.header)
            _sync(self._files[key])
        return content_hash(self.store, self._shape, classes, self.state.rows)

    def _recover(self) -> bool:
        """Read the journal of an interrupted pack; False if it is absent, of something else, or ahead of its arrays."""
        try:
            first, *lines = self._journal_file.read_bytes().splitlines(keepends=True)
            if first != self._lines.line(self._head):
                return False
            whole = len(first)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # torn by the kill
                value = parsed(line.partition(b" ")[2])
                if self._lines.line(value) != line:
                    return False
                self.state.add(value)
                whole += len(line)
            short = any(array.file.stat().st_size < array.length for array in self.arrays().values())
            if short or not self.state.is_sound():
                return False
            os.truncate(self._journal_file, whole)
        except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
            return False
        return True


def _appending(array: Array) -> BinaryIO:
    """Open an array to append to, cut to the length it should have."""
    array.file.touch()
    file = array.file.open("r+b")
    file.truncate(array.length)
    file.seek(0, os.SEEK_END)
    return file


def led_to(out: Path) -> Path:
    """Where a link leads that holds no store yet, for no folder can be renamed to the link itself.

    Raises UserError for one that leads to itself.
    """
    with suppress(OSError):  # said where it is written
        if out.is_symlink() and not is_store(out):
            end = Path(os.path.realpath(out))
            if end.is_symlink():
                raise UserError(f"{out}: a link that leads to itself; name another folder")
            return end
    return out


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Make (or find) and lock the folder where the store of `out` is built. Raises UserError if it is in use.

    It is left for the same call to continue, unless the block ends by `UnfitError`.
    """
    staging = out.parent / f".{out.name}.packing"
    out.parent.mkdir(parents=True, exist_ok=True)
    while True:
        staging.mkdir(exist_ok=True)
        try:
            descriptor = os.open(staging, os.O_RDONLY)
        except FileNotFoundError:  # another process finished and removed it in between
            continue
        try:
            _lock(descriptor, out)
            if staging.exists() and os.path.samestat(os.fstat(descriptor), staging.stat()):
                try:
                    yield staging
                except UnfitError:
                    shutil.rmtree(staging, ignore_errors=True)
                    raise
                finally:
                    with suppress(OSError):
                        staging.rmdir()  # only when nothing is in it
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, out: Path) -> None:
    try:
        take_lock(descriptor, wait=False)
    except BlockingIOError:
        raise UserError(f"{out}: another process is packing it; wait for it or choose another folder") from None


def publish(staging: Path, out: Path, manifest: dict[str, Any], origin: Origin) -> None:
    """Write origin and manifest, give the finished store its name in one rename, clear the rest away."""
    store = staging / "store"
    write_origin(store, origin)
    with (store / MANIFEST).open("wb") as file:
        file.write(sealed(manifest))
        _sync(file)
    sync_folder(store)
    if out.is_dir():
        out.rmdir()  # empty, the caller has looked
    store.rename(out)
    sync_folder(out.parent)
    shutil.rmtree(staging, ignore_errors=True)


class _Chained:
    """Lines of JSON, each behind the first 16 digits of a hash over it and all before it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def line(self, value: dict[str, Any]) -> bytes:
        text = json.dumps(value, sort_keys=True).encode()
        self._hash.update(text + b"\n")
        return self._hash.hexdigest()[:16].encode() + b" " + text + b"\n"


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
