"""The embedded data set: 1,797 handwritten digits of 8x8 grey pixels, so that training works at once and offline.

See digits.txt beside the file for where they come from and their licence (CC BY 4.0).
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unstir.data.images import Refused, fit, to_array
from unstir.data.source import Chunk, Plan, Progress
from unstir.data.spelling import Spelling, in_python
from unstir.data.split import hold_out
from unstir.errors import UserError

FILE = Path(__file__).with_name("digits.npz")
HELD_OUT = 1 / 6
"""Fraction held out unless another is asked for: 299 of 1,797 images, 29 or 30 of each digit."""


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the digits: uint8 [1797, 8, 8] with ink 0..16 mapped to round(v * 255 / 16), and int64 labels 0..9."""
    try:
        with np.load(FILE, allow_pickle=False) as arrays:
            ink, labels = arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{FILE}: the embedded digits are missing or damaged; install unstir again") from None
    return np.round(ink * (255 / 16)).astype(np.uint8), labels.astype(np.int64)


class DigitsSource:
    """The embedded digits as a source, split by class with the hash of each image's number."""

    kind = "digits"

    def __init__(
        self,
        size: int | None,
        channels: int | None,
        held_out: float | None,
        seed: int,
        spelling: Spelling = in_python,
    ) -> None:
        self.spelling = spelling
        self.size, self.channels = size or 8, channels or 1
        self.held_out, self.seed = HELD_OUT if held_out is None else held_out, seed

    @property
    def settings(self) -> dict[str, Any]:
        """See Source."""
        return {"size": self.size, "channels": self.channels, "held_out": self.held_out, "seed": self.seed}

    def stamp(self) -> str:
        """See Source."""
        return hashlib.sha256(FILE.read_bytes()).hexdigest()

    def source_hash(self, shape: tuple[int, int, int]) -> str:
        """See Source."""
        return self.stamp()

    def plan(self, download_dir: Path, progress: Progress | None) -> Plan:
        """Split the digits; every pixel is in memory already."""
        ink, labels = load_digits()
        held = hold_out([f"{i:04d}" for i in range(len(ink))], labels.tolist(), self.held_out, self.seed)
        train = [i for i in range(len(ink)) if i not in held]
        order = {"train": train, "held_out": sorted(held)}
        shape = (self.channels, self.size, self.size)

        def chunks(start: int) -> Generator[Chunk, None, None]:
            stop = 0
            for split, rows in order.items():
                stop += len(rows)
                if stop > start:
                    pixels = (
                        np.stack([self._convert(ink[i]) for i in rows]) if rows else np.zeros((0, *shape), np.uint8)
                    )
                    yield Chunk(split, pixels, labels[rows], stop)

        rule = f"by class, {self.held_out:.4g} of each, ranked by the hash of (seed {self.seed}, image number)"
        names = tuple("0123456789")
        return Plan(shape, names, len(ink), rule, chunks, source_hash=self.stamp())

    def _convert(self, ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            return to_array(fit(Image.fromarray(ink), self.size, []), self.channels)
        except Refused:
            given = self.spelling("size", self.size)
            raise UserError(f"{given} is too large for the 8x8 digits; use size <= 16") from None
