"""The handwritten digits inside the package, so that training works at once and offline.

*mnist*: 10,000 grey images of 28x28 pixels, a sixth of MNIST. *digits*: 1,797 of 8x8, for lessons and tests that are
over in seconds. NAME.txt next to each file says where its images come from and under which licence.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unstir.data.source import Chunk, Options, Plan, Source, chunk_ranges, chunk_rows, hold_out
from unstir.errors import UserError


@dataclass(frozen=True)
class _Embedded:
    """A data set of the package: the side of its images, the value that is white, the default fraction held out."""

    side: int
    white: int
    held_out: float
    license: str


EMBEDDED = {
    "mnist": _Embedded(28, 255, 1 / 10, "CC BY-SA 3.0"),
    "digits": _Embedded(8, 16, 1 / 6, "CC BY 4.0"),
}


def _file_of(name: str) -> Path:
    """The file of an embedded data set: an .npz of images, uint8 [N, H, W], and labels, uint8 [N]."""
    return Path(__file__).with_name(f"{name}.npz")


def load_embedded(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a data set of `EMBEDDED`: uint8 [N, H, W], its values spread to 0..255, and int64 labels 0..9.

    Raises UserError where its file is missing or damaged.
    """
    try:
        with np.load(_file_of(name), allow_pickle=False) as arrays:
            ink, labels = arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError("", _file_of(name), "is missing or damaged", "install unstir again") from None
    return np.round(ink * (255 / EMBEDDED[name].white)).astype(np.uint8), labels.astype(np.int64)


class EmbeddedSource(Source):
    """A data set of the package as a source, split by class with the hash of each image's number."""

    def __init__(self, options: Options) -> None:
        self.kind = str(options.source)
        self._facts = EMBEDDED[self.kind]
        super().__init__(options, self._facts.side, 1, self._facts.held_out)
        self.license = options.license or self._facts.license

    def stamp(self) -> str:
        """Hash the file."""
        return hashlib.sha256(_file_of(self.kind).read_bytes()).hexdigest()

    def plan(self, staging: Path) -> Plan:
        """Split the images; every pixel is in memory already."""
        images, labels = load_embedded(self.kind)
        total, side, seed = len(images), self.size or self._facts.side, self.options.seed
        held = hold_out([f"{i:04d}" for i in range(total)], labels.tolist(), self.held_out, seed)
        order, shape = sorted(range(total), key=lambda i: i in held), (self.channels, side, side)

        def chunks() -> Generator[Chunk, None, None]:
            for split, first, stop in chunk_ranges(total, total - len(held), chunk_rows(shape)):
                rows = order[first:stop]
                pixels = [self.resized(images[i], f"the images of {self.kind}") for i in rows]
                yield Chunk(split, np.stack(pixels), labels[rows])

        rule = f"by class, {self.held_out:.4g} of each, ranked by the hash of (seed {seed}, image number)"
        return Plan(shape, tuple("0123456789"), total, rule, chunks, source_hash=self.stamp())
