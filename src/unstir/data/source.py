"""What any source of images gives to the packer: a plan, then its images chunk by chunk."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from unstir.data.images import MOST_CHANNELS, OTHER_SHAPE, UNREADABLE, Refused, Shape, Sides, fit, to_array
from unstir.data.sides import sides, written
from unstir.errors import UserError, refusing
from unstir.parts import OURS, Option, is_own, make

if TYPE_CHECKING:
    from unstir.data.decoding import Group

HELD_OUT = 0.1  # fraction held out when neither the caller nor the source says

_UNREADABLE = 10  # images, or one in a hundred, that are left out as unreadable; where there are more, packing ends
_KINDS = 5  # of files that are no images, named where there are no images
NUMBERED = "classes are named by numbers, for the source has no other names"
_CHUNK_ROWS = 256
_CHUNK_BYTES = 1 << 22

NAMES = tuple(OURS["source"])
"""The data sets that are known by name."""
UNKNOWN = "unknown"  # the licence of data whose source says none
PREFIX = "hf:"  # of the name of a data set on the Hub


def is_named(source: str) -> bool:
    """Whether a source is a data set with a name, or MODULE:NAME, and no path."""
    return source in NAMES or source.startswith(PREFIX) or is_own(source)


class Chunk(NamedTuple):
    """Consecutive images of one split."""

    split: str
    pixels: NDArray[Any]  # [n, C, H, W], uint8 or float32
    labels: NDArray[np.int64] | None  # [n]
    refused: Sequence[tuple[str, str]] = ()  # (path, reason)
    notes: Sequence[tuple[str, str]] = ()  # (text, path)
    digest: str = ""  # of the source's own bytes, where its hash is not known beforehand
    conditions: NDArray[np.float32] | None = None  # [n, K] or [n, C', H, W]


@dataclass(frozen=True)
class Plan:
    """What will be packed, in order: all of train, then all of held_out."""

    shape: Shape
    classes: tuple[str, ...]
    total: int
    held_out_rule: str
    chunks: Callable[[], Generator[Chunk, None, None]]
    source_hash: str | None = None  # None: the hash of the chunks' digests
    refused: Sequence[tuple[str, str]] = ()
    notes: Sequence[tuple[str, str]] = ()
    is_float: bool = False
    condition: tuple[int, ...] = ()  # the shape of what describes each image, [K] or [C', H, W]; empty: nothing does


_plain = BeforeValidator(lambda value: value.item() if isinstance(value, np.generic) else value)


@refusing
@validated(frozen=True, config=ConfigDict(strict=True))
class Options:
    """What `pack` was asked for, as there; None leaves it to the source. Numbers are not rounded."""

    source: Any
    size: Annotated[Sides | None, BeforeValidator(sides)]
    channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS), _plain] | None
    held_out: Annotated[float, Field(ge=0, lt=1), _plain] | None
    sha256: str | None
    download_dir: Path
    strict: bool
    seed: Annotated[int, _plain]
    license: str = ""
    depth: Literal["auto", "8", "float"] = "auto"
    scale: tuple[float, ...] = ()
    options: dict[str, Option] = field(default_factory=dict)


class Source(ABC):
    """A place images come from.

    ``kind`` is a word for the manifest, ``name`` what messages call it, ``license`` that of the data, if it is known.
    ``settings`` are the options that shape the result, as JSON values: a store made with others is another store.
    """

    kind: str
    files: Sequence[Path] = ()

    def __init__(self, options: Options, size: Sides | None, channels: int, held_out: float | None = None) -> None:
        """``size``, ``channels`` and ``held_out`` are defaults; a source that brings its split has no ``held_out``."""
        self.options, self.name, self.license = options, str(options.source), options.license or UNKNOWN
        self.size, self.channels = options.size or size, options.channels or channels
        self.held_out = (held_out if options.held_out is None else options.held_out) or 0.0
        self.settings: dict[str, Any] = {"size": self.size and written(self.size), "channels": self.channels}
        if options.depth != "auto":
            self.settings["depth"] = options.depth
        if options.scale:
            self.settings["scale"] = ",".join(map(repr, options.scale))
        if held_out is not None:
            self.settings |= {"held_out": self.held_out, "seed": options.seed}

    def stamp(self) -> str:
        """Identify the source's present content quickly: names, lengths and times of its files."""
        rows = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in self.files]
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()

    def source_hash(self, shape: Shape) -> str:
        """Identify it by reading every byte, for a store of images of ``shape``."""
        return self.stamp()

    @abstractmethod
    def plan(self, staging: Path) -> Plan:
        """Find out what there is to pack; may download, and unpack into folders in ``staging``."""

    def plan_of(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], num_train: int, classes: Sequence[str], rule: str
    ) -> Plan:
        """The plan of square images [N, C, H, W] that are all in memory, train first, with ``labels`` [N]."""
        if self.channels not in (1, 3):
            allowed = f"must be one of 1, 3 for the pictures of {self.kind}"
            raise UserError("channels", self.channels, allowed, {"channels": images.shape[1]})
        if self.options.depth == "float":
            raise UserError("depth", "float", f"does not suit {self.kind}, which is 8-bit", {"depth": "8"})
        shape = self.channels, *(self.size or images.shape[2:])

        def chunks() -> Generator[Chunk, None, None]:
            for split, first, stop in _chunk_ranges(len(images), num_train, _chunk_rows(shape)):
                pixels = images[first:stop]
                if pixels.shape[1:] != shape:
                    pixels = np.stack([self._resized(image) for image in pixels])
                yield Chunk(split, pixels, labels[first:stop])

        return Plan(shape, tuple(classes), len(images), rule, chunks)

    def _resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        try:
            return to_array(fit(picture, self.size, []), self.channels)
        except Refused:
            side, size = picture.height, self.size and written(self.size)
            allowed = f"is too large for the images of {self.kind}, {side}x{side}"
            raise UserError("size", size, allowed, {"size": 2 * side}) from None


def known_by_name(options: Options) -> Source | None:
    """The data set of the package that the options name, whose part returns its class; None where they name none."""
    if not isinstance(options.source, str) or options.source not in NAMES:
        return None
    source: Source = make("source", options.source, options=options.options, section="options")(options)
    return source


_Item = TypeVar("_Item")


class Arrangement(NamedTuple, Generic[_Item]):
    """The candidates in packing order, ``num_train`` of train, then those held out; ``labels`` is [N]."""

    items: Sequence[_Item]
    labels: NDArray[np.int64] | None
    num_train: int
    classes: tuple[str, ...]
    rule: str
    refused: Sequence[tuple[str, str]]
    notes: Sequence[tuple[str, str]]
    conditions: NDArray[np.float32] | None = None  # [N, K] or [N, C', h, w]


class ItemSource(Source, Generic[_Item]):
    """A source of images one by one, each of which may be refused; `size` None keeps their one common shape."""

    item_bytes = 1  # the mean length of an image's file

    def __init__(self, options: Options, files: Sequence[Path] = ()) -> None:
        super().__init__(options, None, 3, HELD_OUT)
        self.files = files
        self.is_float = options.depth == "float"
        if self.is_float:
            self.channels = options.channels or 0  # as many as there are

    @property
    @abstractmethod
    def arranged(self) -> Arrangement[_Item]:
        """The candidates as the last stamp found them."""

    @abstractmethod
    def groups(self, requests: Sequence[list[_Item]], shape: Shape | None) -> Generator["Group", None, None]:
        """Decode groups of items in order; of another shape than ``shape``, or than the group's first, none is kept."""

    def source_hash(self, shape: Shape) -> str:
        """Hash the content of every candidate, as packing does."""
        arranged = self.arranged
        requests = [list(arranged.items[first:stop]) for _, first, stop in self._ranges(arranged, shape)]
        return joint_digest([group.digest for group in self.groups(requests, shape)])

    def plan(self, staging: Path) -> Plan:
        """Arrange the items, and find the common shape when no size is given."""
        arranged = self.arranged
        if not arranged.items:
            kinds = ", ".join(sorted({Path(path).suffix or Path(path).name for _, path in arranged.notes})[:_KINDS])
            ignored = f"{len(arranged.notes)} ignored" + f": {kinds}" * bool(kinds)
            none = f"has no images to pack ({len(arranged.refused)} refused, {ignored})"
            mend = "give PNG, JPEG, WebP, BMP, GIF or TIFF files, or another form of docs/data.md"
            raise UserError("", self.name, none, mend)
        known = self.size and self.channels
        shape = (self.channels, *self.size) if self.size and known else self._common_shape(arranged.items)
        notes = [*arranged.notes]
        if arranged.classes and all(map(str.isdecimal, arranged.classes)):
            notes.append((NUMBERED, self.name))
        of = () if arranged.conditions is None else arranged.conditions.shape[1:]
        condition = (*of[:1], *shape[1:]) if len(of) == 3 else of
        plan = shape, arranged.classes, len(arranged.items), arranged.rule, partial(self._chunks, arranged, shape)
        return Plan(*plan, None, arranged.refused, notes, self.is_float, condition)

    def _ranges(self, arranged: Arrangement[_Item], shape: Shape) -> list[tuple[str, int, int]]:
        return _chunk_ranges(len(arranged.items), arranged.num_train, _chunk_rows(shape, self.item_bytes))

    def _common_shape(self, items: Sequence[_Item]) -> Shape:
        first = ""
        with closing(self.groups([[item] for item in items], None)) as groups:
            for group in groups:
                if len(group.pixels):
                    _, channels, height, width = group.pixels.shape
                    return channels, height, width
                first = first or "{} ({})".format(*group.refused[0])
        raise UserError("", self.name, f"has no image among {len(items)}, such as {first}")

    def _chunks(self, arranged: Arrangement[_Item], shape: Shape) -> Generator[Chunk, None, None]:
        ranges = self._ranges(arranged, shape)
        unreadable, most, earlier = list[str](), max(_UNREADABLE, len(arranged.items) // 100), arranged.refused
        requests = [list(arranged.items[first:stop]) for _, first, stop in ranges]
        with closing(self.groups(requests, shape)) as groups:
            for (split, first, stop), group in zip(ranges, groups, strict=True):
                refused, earlier = [*earlier, *group.refused], ()
                unreadable += [f"{path} ({why})" for path, why in refused if why.startswith(UNREADABLE)]
                if len(unreadable) > most:
                    some = f"has more than {most} images that cannot be read, such as {unreadable[0]}"
                    raise UserError("", self.name, some, "check the disk and what reads them")
                for path, why in group.refused:
                    if why.startswith(OTHER_SHAPE):
                        allowed = f"has images of several sizes: {path!r} is {why}"
                        raise UserError("", self.name, allowed, {"size": min(32, *shape[1:])})
                labels = None if arranged.labels is None else arranged.labels[first:stop][group.kept]
                conditions = self._conditions(arranged.conditions, slice(first, stop), group.kept, shape)
                yield Chunk(split, group.pixels, labels, group.refused, group.notes, group.digest, conditions)

    def _conditions(
        self, conditions: NDArray[np.float32] | None, part: slice, kept: Any, shape: Shape
    ) -> NDArray[np.float32] | None:
        """Those of some images; images among them are repeated by a whole factor to the sides of ``shape``."""
        if conditions is None:
            return None
        rows: NDArray[np.float32] = conditions[part][kept]
        if rows.ndim == 2:
            return rows
        factor = shape[1] // rows.shape[2] if rows.shape[2] else 0
        if (rows.shape[2] * factor, rows.shape[3] * factor) != shape[1:]:
            sides = f"has conditions of sides {list(rows.shape[2:])}, and images of {list(shape[1:])}"
            raise UserError("", self.name, sides, "give conditions of these sides, or of both divided by one number")
        return np.repeat(np.repeat(rows, factor, 2), factor, 3)


def _chunk_rows(shape: Shape, file_bytes: int = 1) -> int:
    """How many images make a chunk: at most 256, 4 MiB of pixels, and 4 MiB of files, which take time to decode."""
    return max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // int(np.prod(shape, dtype=np.int64)), _CHUNK_BYTES // file_bytes))


def _chunk_ranges(total: int, num_train: int, rows: int) -> list[tuple[str, int, int]]:
    """Cut 0..total into chunks of at most `rows`, none across num_train: (split, first, last + 1) of each."""
    cuts = [*range(0, num_train, rows), *range(num_train, total, rows), total]
    return [("train" if a < num_train else "held_out", a, b) for a, b in pairwise(cuts)]


def hold_out(names: Sequence[str], labels: Sequence[Hashable], fraction: float, seed: int) -> set[int]:
    """Choose the indices to hold out: round(n * fraction) of each label's n images, at least one where n >= 2.

    fraction in [0, 1); 0 holds out nothing. Images are ranked by SHA-256 of (seed, name), so the choice depends
    on names alone, and one more image changes at most one other image's side of its class.
    """
    if fraction == 0:
        return set()

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{names[index]}".encode("utf-8", "surrogateescape")).digest()

    groups: dict[Hashable, list[int]] = {}
    for index in sorted(range(len(names)), key=rank):
        groups.setdefault(labels[index], []).append(index)
    counts = {label: min(max(1, round(len(group) * fraction)), len(group) - 1) for label, group in groups.items()}
    return {index for label, group in groups.items() for index in group[: counts[label]]}


def joint_digest(digests: list[str]) -> str:
    """Combine the chunks' digests into the source's."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
