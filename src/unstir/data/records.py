"""Images as rows of something: arrays, a table, shards of samples, a torch Dataset. One source packs them all.

What differs is how rows are found and read (`Rows`); what is alike is here: splits, labels, chunks, digests. The order
is that of the rows, train first. A row may be an image file's bytes, an image of Pillow, or an array:

    uint8 or bool, [H, W], [H, W, 1 or 3 or 4] or [1 or 3, H, W]      as it is (alpha on white)
    floating point in 0..1, the same shapes                          rounded to 0..255, as torchvision's ToTensor undone

Where a shape fits two of these ([3, 4, 4]), the one is meant of which the image is square.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unstir.data.decoding import Group, Outcome, group_of
from unstir.data.folder import HELD_OUT_NAMES
from unstir.data.images import LEFT_OUT, Decoded, Refused, Shape, convert, decode
from unstir.data.listing import item_digest
from unstir.data.rows import Rows, with_names, with_plain_labels
from unstir.data.source import Arrangement, ItemSource, hold_out


@dataclass(frozen=True)
class _Place:
    """A row to be packed."""

    rows: Rows
    number: int

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.rows.name}[{self.number}]"

    @property
    def label(self) -> Hashable:
        """The label of the row; None where it has none."""
        return self.rows.labels[self.number]

    def read(self) -> object:
        """The row as the source gives it."""
        return self.rows.read(self.number)


class Records(ItemSource[_Place]):
    """Rows as a source; `rows` says where they are found."""

    @abstractmethod
    def rows(self) -> list[Rows]:
        """All rows. Raises UserError where there are none, or no images among them."""

    def digests(self, items: Sequence[_Place]) -> Iterator[bytes]:
        """Read the rows."""
        return (_digest(place, place.read()) for place in items)

    def groups(self, requests: Sequence[list[_Place]], shape: Shape | None) -> Generator[Group, None, None]:
        """Decode rows in this process."""
        for places in requests:
            yield group_of(map(self._outcome, places), shape)

    @cache  # noqa: B019  (a source lives as long as its packing)
    def arranged(self) -> Arrangement[_Place]:
        """The rows by their splits, which are train, and those that `split_of` knows beside it."""
        parts = self.rows()
        named = any(rows.classes for rows in parts)
        parts = [with_plain_labels(rows, named) for rows in parts]
        splits = {rows.split for rows in parts}
        labelled = {rows.split for rows in parts if any(label is not None for label in rows.labels)}
        known = {"train", *HELD_OUT_NAMES} & splits if "train" in splits else splits
        withheld = known - labelled if "train" in labelled else set[str]()
        known = known - withheld
        train, held, notes = list[_Place](), list[_Place](), list[tuple[str, str]]()
        packed, classes = with_names([rows for rows in parts if rows.split in known], self.name)
        for rows in packed:
            notes += rows.notes
            (held if "train" in splits and rows.split != "train" else train).extend(_places(rows))
        for rows in parts:
            if rows.split not in known:
                why = f"{LEFT_OUT}: of the split {rows.split}" + ", which has no labels" * (rows.split in withheld)
                notes += [(why, place.name) for place in _places(rows)]
        rule = f"the splits named {', '.join(sorted(known - {'train'}))}"
        if not held:
            chosen = hold_out(
                [place.name for place in train], [place.label for place in train], self.held_out, self.options.seed
            )
            held = [train[i] for i in sorted(chosen)]
            train = [place for i, place in enumerate(train) if i not in chosen]
            rule = f"by class, {self.held_out:.4g} of each, ranked by the hash of (seed {self.options.seed}, row)"
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[str(place.label)] for place in train + held], np.int64) if classes else None
        return Arrangement(train + held, labels, len(train), classes, rule, (), notes)

    def _outcome(self, place: _Place) -> Outcome:
        item = place.read()
        try:
            if isinstance(item, bytes | bytearray | memoryview):
                outcome: Decoded | Refused = decode(bytes(item), None, self.size, self.channels)
            else:
                image = item if isinstance(item, Image.Image) else _as_image(np.asarray(item))
                outcome = convert(image, self.size, self.channels)
        except Refused as refusal:
            outcome = refusal
        return place.name, _digest(place, item), outcome


def _as_image(values: NDArray[Any]) -> Image.Image:
    """An array as the table above has it. Raises Refused."""
    if values.ndim == 3 and _channels_first(*values.shape):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))) or not values.size:
        raise Refused(f"an array of shape {list(values.shape)}, which is no image; give [H, W], [H, W, 3] or [3, H, W]")
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all():
            raise Refused("values that are NaN or infinite; give floating point in 0..1, or uint8")
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:
            raise Refused(f"values from {low:.3g} to {high:.3g}; give floating point in 0..1, or uint8")
        values = np.round(values * 255.0).astype(np.uint8)
    if values.dtype != np.uint8:
        raise Refused(f"values of type {values.dtype}; give uint8, or floating point in 0..1")
    return Image.fromarray(np.ascontiguousarray(values))


def _channels_first(first: int, second: int, third: int) -> bool:
    """Whether an array [first, second, third] is [C, H, W] and not [H, W, C]. Raises Refused where nobody can tell."""
    if first not in (1, 3) or third not in (1, 3, 4):
        return first in (1, 3)
    if first != second and second != third:
        shape = [first, second, third]
        raise Refused(f"an array of shape {shape} is [C, H, W] or [H, W, C], which nobody can tell; give image files")
    return first != second


def _places(rows: Rows) -> list[_Place]:
    return [_Place(rows, index) for index in range(len(rows.labels))]


def _digest(place: _Place, item: object) -> bytes:
    """Identify a row by its name, its label and its content."""
    if isinstance(item, Image.Image):
        data = f"{item.mode} {item.size}".encode() + item.tobytes()
    elif isinstance(item, bytes | bytearray | memoryview):
        data = bytes(item)
    else:
        array = np.asarray(item)
        data = f"{array.dtype} {array.shape}".encode() + array.tobytes()
    return item_digest(f"{place.name}\0{place.label or ''}", data)


def file_stamp(files: Sequence[Path]) -> str:
    """Identify files by name, length and time."""
    rows = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def split_of(name: str) -> str:
    """The split that a file's name begins with, as train-00000-of-00002.parquet does; "train" where it names none."""
    words = name.casefold().replace("-", " ").replace("_", " ").replace(".", " ").split()
    return words[0] if words and words[0] in HELD_OUT_NAMES else "train"
