"""A store while it is packed, in a staging folder beside the place where it will be.

    .NAME.packing/store/    the arrays as they grow, then the manifest; renamed to NAME at the very end

A lock beside the staging folder is held while that is in use, and both are removed however packing ends. What a killed
packing leaves is removed by the next one, which begins again.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from unstir.data.disk import sync_folder
from unstir.data.images import Shape
from unstir.data.manifest import MANIFEST, SPLITS, Origin, sealed, write_origin
from unstir.data.source import Chunk
from unstir.data.store import Array, arrays, content_hash, is_store
from unstir.errors import UserError
from unstir.locks import held


class Writer:
    """Appends chunks to the arrays of a store in the folder ``store``, made here, within a ``with`` block."""

    def __init__(self, store: Path, shape: Shape, labelled: bool) -> None:
        self.store, self._shape, self._labelled = store, shape, labelled
        self.done = 0  # images packed or refused
        self.rows = dict.fromkeys(SPLITS, 0)
        self.refused, self.notes, self.digests = list[tuple[str, str]](), list[tuple[str, str]](), list[str]()

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
        return arrays(self.store, self._shape, self.rows, self._labelled)

    def write(self, chunk: Chunk) -> None:
        """Append one chunk."""
        self._files[chunk.split, "images"].write(np.ascontiguousarray(chunk.pixels).data)
        if chunk.labels is not None:
            self._files[chunk.split, "labels"].write(chunk.labels.astype("<i8").data)
        self.rows[chunk.split] += len(chunk.pixels)
        self.done += len(chunk.pixels) + len(chunk.refused)
        self.refused += chunk.refused
        self.notes += chunk.notes
        self.digests += [chunk.digest] if chunk.digest else []

    def finish(self, classes: list[str]) -> str:
        """Write the arrays' headers, now that their lengths are known, and make all of it last; the content hash."""
        for key, array in self.arrays().items():
            self._files[key].seek(0)
            self._files[key].write(array.header)
            _sync(self._files[key])
        return content_hash(self.store, self._shape, classes, self.rows)


def led_to(out: Path) -> Path:
    """Where a link leads that holds no store yet, for no folder can be renamed to the link itself.

    Raises UserError for one that leads to itself.
    """
    with suppress(OSError):  # said where it is written
        if out.is_symlink() and not is_store(out):
            end = Path(os.path.realpath(out))
            if end.is_symlink():
                raise UserError("", out, "is a link that leads to itself", "name another folder")
            return end
    return out


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Make an empty folder, under a lock, where the store of `out` is built; it is removed at the end of the block.

    Raises UserError if it is in use.
    """
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
