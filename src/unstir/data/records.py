"""Images as rows of something: arrays, a table, shards of samples, a torch Dataset. One source packs them all.

What differs is how rows are found and read (`Rows`); what is alike is here: splits, labels, chunks, digests. The order
is that of the rows, train first. A row may be an image file's bytes, an image of Pillow, or an array:

    uint8 or bool, [H, W], [H, W, 1 or 3 or 4] or [1 or 3, H, W]      as it is (alpha on white)
    floating point in 0..1, the same shapes                          rounded to 0..255, as torchvision's ToTensor undone

Where a shape fits two of these ([3, 4, 4]), the one is meant of which the image is square.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unstir.data.folder import HELD_OUT, HELD_OUT_NAMES
from unstir.data.images import LEFT_OUT, OTHER_SHAPE, Decoded, Refused, Shape, convert, decode
from unstir.data.listing import item_digest, natural
from unstir.data.rows import Rows, in_one_list, with_plain_labels
from unstir.data.source import Chunk, Options, Plan, Source, chunk_ranges, chunk_rows, hold_out, joint_digest
from unstir.errors import UserError
from unstir.progress import counted

UNKNOWN = "unknown"  # the licence of data whose source says none


class Records(ABC):
    """Where rows are found. ``name`` is what messages call it."""

    kind: str
    name: str
    license: str = UNKNOWN

    @abstractmethod
    def stamp(self) -> str:
        """Identify the present content quickly."""

    @abstractmethod
    def rows(self) -> list[Rows]:
        """All rows. Raises UserError where there are none, or no images among them."""


class _Place(NamedTuple):
    """A row to be packed."""

    rows: Rows
    number: int

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.rows.name}[{self.number}]"


class RecordsSource(Source):
    """Rows as a source; `size` None keeps their one common shape."""

    def __init__(self, records: Records, options: Options) -> None:
        super().__init__(options, None, 3, HELD_OUT)
        self.records, self.kind, self.license = records, records.kind, options.license or records.license

    @property
    def name(self) -> str:
        """As that of the records."""
        return self.records.name

    def stamp(self) -> str:
        """As that of the records."""
        return self.records.stamp()

    def source_hash(self, shape: Shape) -> str:
        """Hash every row, as packing does."""
        places, labels, num_train = self._arranged[:3]
        digests = []
        for _, first, stop in self._ranges(len(places), num_train, shape):
            digest = hashlib.sha256()
            for place, label in zip(places[first:stop], labels[first:stop], strict=True):
                digest.update(_digest(place, label, place.rows.read(place.number)))
            digests.append(digest.hexdigest())
        return joint_digest(digests)

    def plan(self, staging: Path) -> Plan:
        """Arrange the rows, and find the common shape when no size is given."""
        places, labels, num_train, classes, rule, notes = self._arranged
        if not places:
            raise UserError("", self.name, "has no rows, so no images to pack")
        shape = (self.channels, self.size, self.size) if self.size else self._common_shape(places)
        numbers = {name: i for i, name in enumerate(classes)} if classes else {}
        ids = np.array([numbers[label] for label in labels], np.int64) if classes else None

        def chunks() -> Generator[Chunk, None, None]:
            for split, first, stop in self._ranges(len(places), num_train, shape):
                own = None if ids is None else ids[first:stop]
                yield self._chunk(split, places[first:stop], labels[first:stop], own, shape)

        return Plan(shape, classes, len(places), rule, chunks, notes=notes)

    def _ranges(self, total: int, num_train: int, shape: Shape) -> list[tuple[str, int, int]]:
        return chunk_ranges(total, num_train, chunk_rows(shape))

    @cached_property
    def _arranged(self) -> tuple[list[_Place], list[str], int, tuple[str, ...], str, list[tuple[str, str]]]:
        """The rows in packing order with their labels' names; how many are of train; classes, rule and notes."""
        train, held, notes = list[_Place](), list[_Place](), list[tuple[str, str]]()
        found = self._found()
        splits = {rows.split for rows in found}
        labelled = {rows.split for rows in found if any(label is not None for label in rows.labels)}
        known = {"train", *HELD_OUT_NAMES} & splits if "train" in splits else splits
        withheld = known - labelled if "train" in labelled else set[str]()
        known = known - withheld
        packed, listed = in_one_list([rows for rows in found if rows.split in known], self.name)
        for rows in packed:
            notes += rows.notes
            (held if "train" in splits and rows.split != "train" else train).extend(_places(rows))
        for rows in found:
            if rows.split not in known:
                why = f"{LEFT_OUT}: of the split {rows.split}" + ", which has no labels" * (rows.split in withheld)
                notes += [(why, place.name) for place in _places(rows)]
        rule = f"the splits named {', '.join(sorted(known - {'train'}))}"
        if not held:
            names = [place.name for place in train]
            chosen = hold_out(names, [_label(place) for place in train], self.held_out, self.options.seed)
            held = [train[i] for i in sorted(chosen)]
            train = [place for i, place in enumerate(train) if i not in chosen]
            rule = f"by class, {self.held_out:.4g} of each, ranked by the hash of (seed {self.options.seed}, row)"
        places = train + held
        labels, classes = self._named([_label(place) for place in places], listed)
        return places, labels, len(train), classes, rule, notes

    def _found(self) -> list[Rows]:
        """The rows, without the labels that are none: data sets of the Hub write -1 for one that is withheld."""
        found = [with_plain_labels(rows) for rows in self.records.rows()]
        if not any(rows.classes for rows in found):
            return found
        return [
            rows._replace(labels=[None if isinstance(label, int) and label < 0 else label for label in rows.labels])
            for rows in found
        ]

    def _named(self, labels: list[Hashable], known: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
        """The labels by name, and all names in order; UserError where some rows have a label and others none."""
        missing = sum(label is None for label in labels)
        if missing == len(labels):
            return ["" for _ in labels], ()
        if missing:
            without = f"has {missing} of {len(labels)} rows without a label"
            raise UserError("", self.name, without, "give all a label, or none (-1 counts as none)")
        numbers = [label for label in labels if isinstance(label, int) and 0 <= label < len(known)]
        if len(numbers) == len(labels):
            return [known[number] for number in numbers], known
        names = [str(label) for label in labels]
        return names, tuple(sorted(set(names), key=natural))

    def _common_shape(self, places: list[_Place]) -> Shape:
        """The shape of the first row that is an image."""
        first = ""
        for place in places:
            try:
                channels, height, width = self._decoded(place, place.rows.read(place.number)).pixels.shape
            except Refused as refusal:
                first = first or f"{place.name} ({refusal})"
            else:
                return channels, height, width
        raise UserError("", self.name, f"has no image among {counted(len(places), 'row')}, such as {first}")

    def _chunk(self, split: str, places: list[_Place], labels: list[str], ids: Any, shape: Shape) -> Chunk:
        kept, pixels, digest = list[int](), list[NDArray[np.uint8]](), hashlib.sha256()
        refused, notes = list[tuple[str, str]](), list[tuple[str, str]]()
        for number, (place, label) in enumerate(zip(places, labels, strict=True)):
            item = place.rows.read(place.number)
            digest.update(_digest(place, label, item))
            try:
                made = self._decoded(place, item)
            except Refused as refusal:
                refused.append((place.name, str(refusal)))
                continue
            if made.pixels.shape != shape:
                height, width = made.pixels.shape[1:]
                why = f"{OTHER_SHAPE} {width}x{height} pixels, where others have {shape[2]}x{shape[1]}"
                raise self.differing(place.name, why, shape)
            kept.append(number)
            pixels.append(made.pixels)
            notes += [(text, place.name) for text in made.notes]
        block = np.stack(pixels) if pixels else np.empty((0, *shape), np.uint8)
        return Chunk(split, block, None if ids is None else ids[kept], refused, notes, digest.hexdigest())

    def _decoded(self, place: _Place, item: object) -> Decoded:
        """A row as an image. Raises Refused."""
        if isinstance(item, bytes | bytearray | memoryview):
            return decode(bytes(item), None, self.size, self.channels)
        image = item if isinstance(item, Image.Image) else _as_image(np.asarray(item))
        return convert(image, self.size, self.channels)


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


def _label(place: _Place) -> Hashable:
    return place.rows.labels[place.number]


def _digest(place: _Place, label: str, item: object) -> bytes:
    """Identify a row by its name, its label and its content."""
    if isinstance(item, Image.Image):
        data = f"{item.mode} {item.size}".encode() + item.tobytes()
    elif isinstance(item, bytes | bytearray | memoryview):
        data = bytes(item)
    else:
        array = np.asarray(item)
        data = f"{array.dtype} {array.shape}".encode() + array.tobytes()
    return item_digest(f"{place.name}\0{label}", data)


def file_stamp(files: Sequence[Path]) -> str:
    """Identify files by name, length and time."""
    rows = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def split_of(name: str) -> str:
    """The split that a file's name begins with, as train-00000-of-00002.parquet does; "train" where it names none."""
    words = name.casefold().replace("-", " ").replace("_", " ").replace(".", " ").split()
    return words[0] if words and words[0] in HELD_OUT_NAMES else "train"
