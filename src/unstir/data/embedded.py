"""The handwritten digits inside the package, so that training works at once and offline.

NAME.txt says where the images of NAME.npz come from, and under which licence.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstir.data.records import Records, Rows
from unstir.data.source import Options, Source
from unstir.errors import UserError
from unstir.parts import source


@dataclass(frozen=True)
class _Embedded:
    file: Path  # an .npz of images, uint8 [N, H, W], and labels, uint8 [N]
    side: int  # of its images
    white: int
    held_out: float  # fraction
    license: str


EMBEDDED = {
    "mnist": _Embedded(Path(__file__).with_name("mnist.npz"), 28, 255, 1 / 10, "CC BY-SA 3.0"),
    "digits": _Embedded(Path(__file__).with_name("digits.npz"), 8, 16, 1 / 6, "CC BY 4.0"),
}


def load_embedded(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A data set of `EMBEDDED`: uint8 [N, H, W] in 0..255 and int64 labels 0..9."""
    with np.load(EMBEDDED[name].file, allow_pickle=False) as arrays:
        ink, labels = arrays["images"], arrays["labels"]
    return np.round(ink * (255 / EMBEDDED[name].white)).astype(np.uint8), labels.astype(np.int64)


def held_out(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of a data set of `EMBEDDED` that packing holds out: uint8 [n, 1, H, W] and int64 labels 0..9."""
    arranged = EmbeddedSource(Options(name)).arranged
    numbers = [place.number for place in arranged.items[arranged.num_train :]]
    images, labels = load_embedded(name)
    return images[numbers, None], labels[numbers]


class EmbeddedSource(Records):
    """A data set of the package as a source, split by class with the hash of each image's number."""

    looked_at = 1
    hashes_files = has_names = True

    def __init__(self, options: Options) -> None:
        self.kind = str(options.source)
        facts = EMBEDDED[self.kind]
        if options.sha256:
            raise UserError("sha256", options.sha256, f"is the hash of one file, not of {self.kind}", {"sha256": None})
        super().__init__(options, [facts.file], (facts.side, facts.side), 1, facts.held_out)
        self.license = options.license or facts.license

    def rows(self) -> list[Rows]:
        """The images in their order."""
        images, labels = load_embedded(self.kind)
        names = [f"{number:04d}" for number in range(len(images))]
        return [Rows("train", self.kind, labels.tolist(), images.__getitem__, tuple("0123456789"), names=names)]


@source
def mnist() -> type[Source[Any]]:
    """The handwritten digits of LeCun et al. 1998, 28x28: those that the package holds."""
    return EmbeddedSource


@source
def digits() -> type[Source[Any]]:
    """The handwritten digits of scikit-learn, 8x8."""
    return EmbeddedSource
