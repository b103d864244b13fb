"""What any source of images gives to the packer: a plan, then its images chunk by chunk from any position."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Progress = Callable[[int, int], None]
"""Called with (done, total): bytes while an archive is downloaded, images while they are packed."""

_CHUNK_ROWS = 256
_CHUNK_BYTES = 1 << 22


class Chunk(NamedTuple):
    """Consecutive images of one split."""

    split: str
    pixels: NDArray[np.uint8]  # [n, C, H, W]
    labels: NDArray[np.int64] | None  # [n]
    stop: int  # position in the plan after this chunk
    refused: tuple[tuple[str, str], ...] = ()  # (path, reason)
    notes: tuple[tuple[str, str], ...] = ()  # (text, path)
    digest: str = ""  # of the source's own bytes, where its hash is not known beforehand


@dataclass(frozen=True)
class Plan:
    """What will be packed, in order: all of train, then all of held_out."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    total: int
    held_out_rule: str
    chunks: Callable[[int], Generator[Chunk, None, None]]  # from a position that ended a chunk, or 0
    source_hash: str | None = None  # None: the hash of the chunks' digests
    refused: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


class Source(Protocol):
    """A place images come from."""

    @property
    def kind(self) -> str:
        """A word for the manifest."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that shape the result, as JSON values; a store made with others is another store."""

    def stamp(self) -> str:
        """Identify the source's present content quickly, from names, lengths and times."""

    def source_hash(self, shape: tuple[int, int, int]) -> str:
        """Identify it by reading every byte."""

    def plan(self, download_dir: Path, progress: Progress | None) -> Plan:
        """Find out what there is to pack; may download."""


def chunk_rows(shape: tuple[int, int, int], file_bytes: int = 1) -> int:
    """Choose how many images of this shape make a chunk: at most 256, 4 MiB of pixels, and 4 MiB of files.

    file_bytes is the mean length of an image's file: decoding large photographs takes time, and a chunk is what
    progress counts, what a core works on and what a kill loses.
    """
    return max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // int(np.prod(shape, dtype=np.int64)), _CHUNK_BYTES // file_bytes))
