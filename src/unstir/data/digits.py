"""The embedded data set: 1,797 handwritten digits of 8x8 grey pixels, so that training works at once and offline.

See digits.txt next to this file for where they come from and their licence (CC BY 4.0).
"""

import hashlib
import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unstir.data.source import Chunk, Options, Plan, Source, chunk_ranges, hold_out
from unstir.errors import UserError
from unstir.progress import Progress

FILE = Path(__file__).with_name("digits.npz")
SIDE = 8
HELD_OUT = 1 / 6  # fraction held out unless another is asked for: 299 of 1,797 images, 29 or 30 of each digit


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the digits: uint8 [1797, 8, 8] with ink 0..16 mapped to round(v * 255 / 16), and int64 labels 0..9."""
    try:
        with np.load(FILE, allow_pickle=False) as arrays:
            ink, labels = arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{FILE}: the embedded digits are missing or damaged; install unstir again") from None
    return np.round(ink * (255 / 16)).astype(np.uint8), labels.astype(np.int64)


class DigitsSource(Source):
    """The embedded digits as a source, split by class with the hash of each image's number."""

    kind = "digits"

    def __init__(self, options: Options) -> None:
        super().__init__(options, SIDE, 1, HELD_OUT)

    def stamp(self) -> str:
        """Hash the file of the digits."""
        return hashlib.sha256(FILE.read_bytes()).hexdigest()

    def plan(self, progress: Progress | None) -> Plan:
        """Split the digits; every pixel is in memory already."""
        ink, labels = load_digits()
        total, side, seed = len(ink), self.size or SIDE, self.options.seed
        held = hold_out([f"{i:04d}" for i in range(total)], labels.tolist(), self.held_out, seed)
        order = sorted(range(total), key=lambda i: i in held)

        def chunks(start: int) -> Generator[Chunk, None, None]:
            for split, first, stop in chunk_ranges(total, total - len(held), total):
                if first >= start:
                    rows = order[first:stop]
                    yield Chunk(split, np.stack([self.resized(ink[i], "the digits") for i in rows]), labels[rows], stop)

        rule = f"by class, {self.held_out:.4g} of each, ranked by the hash of (seed {seed}, image number)"
        shape = (self.channels, side, side)
        return Plan(shape, tuple("0123456789"), total, rule, chunks, source_hash=self.stamp())
