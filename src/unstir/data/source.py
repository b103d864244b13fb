"""What any source of images gives to the packer: a plan, then its images chunk by chunk."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from unstir.data.disk import file_sha256, open_file
from unstir.data.images import MOST_CHANNELS, OTHER_SHAPE, UNREADABLE, Group, Shape, Sides, as_float32, fit
from unstir.errors import UserError, refusing
from unstir.parts import OURS, Option, is_own
from unstir.pixels import enlarged
from unstir.progress import sides, written

HELD_OUT_NAMES = frozenset(("test", "val", "valid", "validation", "held_out"))
HELD_OUT = 0.1  # fraction, where neither the caller nor the source says one

_FEW = 10  # images, or one in a hundred, that may be unreadable; where there are more, packing ends
_KINDS = 5  # of files that are no images, named where there are no others
NUMBERED = "classes are named by numbers, for the source has no other names"
_CHUNK_ROWS = 256
_CHUNK_BYTES = 1 << 22

NAMES = tuple(OURS["source"])
"""The data sets that are known by name."""
UNKNOWN = "unknown"  # the licence of data that has none
PREFIX = "hf:"  # of a data set on the Hub


def is_named(source: str) -> bool:
    """Whether a source is a data set's name, or MODULE:NAME, and no path."""
    return source in NAMES or source.startswith(PREFIX) or is_own(source)


class Chunk(NamedTuple):
    """Consecutive images of one split, and what is known of the n of them that are kept."""

    split: str
    group: Group
    labels: NDArray[np.int64] | None  # [n]
    conditions: NDArray[np.float32] | None  # [n, K] or [n, C', H, W]


@dataclass(frozen=True)
class Plan:
    """What will be packed, in order: all of train, then all of held_out."""

    shape: Shape
    classes: tuple[str, ...]
    counts: dict[str, int]  # images by split, those that decoding will refuse too
    held_out_rule: str
    chunks: Callable[[], Generator[Chunk, None, None]]
    source_hash: str | None = None  # None: the hash of the chunks' digests
    refused: Sequence[tuple[str, str]] = ()
    notes: Sequence[tuple[str, str]] = ()
    is_float: bool = False
    condition: tuple[int, ...] = ()  # the shape of what describes each image, [K] or [C', H, W]; () where nothing does


_plain = BeforeValidator(lambda value: value.item() if isinstance(value, np.generic) else value)


@refusing
@validated(frozen=True, config=ConfigDict(strict=True))
class Options:
    """What `pack` was asked for, as there; None leaves it to the source. Numbers are not rounded."""

    source: Any
    size: Annotated[Sides | None, BeforeValidator(sides)] = None
    channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS), _plain] | None = None
    held_out: Annotated[float, Field(ge=0, lt=1), _plain] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    download_dir: Path = Path()
    strict: bool = False
    seed: Annotated[int, _plain] = 0
    license: str = ""
    depth: Literal["auto", "8", "float"] = "auto"
    scale: tuple[float, ...] = ()
    options: dict[str, Option] = field(default_factory=dict)
    conditions: str = ""


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


class Source(ABC, Generic[_Item]):
    """A place that images come from, each of which may be refused; `size` None keeps their one common shape.

    ``kind`` is a word for the manifest, ``name`` what messages call it, ``license`` that of the data. ``settings`` are
    the options that shape the result, as JSON values: a store made with others is another store.
    """

    kind: str
    item_bytes = 1  # the mean length of an image's file
    hashes_files = False  # whether its hash is that of its files, and not of the images
    has_names = False  # whether classes that are numbers have no other names

    def __init__(
        self,
        options: Options,
        files: Sequence[Path] = (),
        size: Sides | None = None,
        channels: int = 3,
        held_out: float | None = HELD_OUT,
    ) -> None:
        """``size``, ``channels`` and ``held_out`` are defaults; a source that brings its split has no ``held_out``."""
        self.options, self.name, self.license = options, str(options.source), options.license or UNKNOWN
        self.files, self.is_float = files, options.depth == "float"
        self.size, self.channels = options.size or size, options.channels or channels
        self.held_out = (held_out if options.held_out is None else options.held_out) or 0.0
        self.settings: dict[str, Any] = {"size": self.size and written(self.size), "channels": self.channels}
        if options.depth != "auto":
            self.settings["depth"] = options.depth
        if options.scale:
            self.settings["scale"] = ",".join(map(repr, options.scale))
        if options.conditions:
            self.settings["conditions"] = file_sha256(Path(options.conditions))
        if held_out is not None:
            self.settings |= {"held_out": self.held_out, "seed": options.seed}
        if self.is_float:
            self.channels = options.channels or 0  # as many as there are

    @property
    @abstractmethod
    def arranged(self) -> Arrangement[_Item]:
        """The candidates as the last stamp found them."""

    @abstractmethod
    def groups(self, requests: Sequence[list[_Item]], shape: Shape | None) -> Generator[Group, None, None]:
        """Decode groups of items in order, and keep those of ``shape``, by default that of the group's first."""

    def stamp(self) -> str:
        """Identify the present content quickly: by names, lengths and times of the files."""
        rows = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in self.files]
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()

    def source_hash(self, shape: Shape) -> str:
        """Hash the files, or every candidate for a store of images of ``shape``, as packing does."""
        if self.hashes_files:
            digests = [file_sha256(file) for file in self.files]
            return digests[0] if len(digests) == 1 else joint_digest(digests)
        arranged = self.arranged
        requests = [[arranged.items[place] for place in part] for _, part in self._parts(arranged, shape)]
        return joint_digest([group.digest for group in self.groups(requests, shape)])

    def plan(self, staging: Path) -> Plan:
        """What there is to pack, with the common shape; may download, and unpack into ``staging``."""
        arranged = self.arranged
        if (given := self.options.conditions) and self.kind not in ("folder", "zip"):
            raise UserError("conditions", given, "is for a folder, zip or tar of images", "pack them in one .npz file")
        if not arranged.items:
            kinds = sorted({Path(path).suffix or Path(path).name for _, path in arranged.notes})[:_KINDS] or ["none"]
            ignored = f"{len(arranged.notes)} ignored: {', '.join(kinds)}"
            none = f"has no images to pack ({len(arranged.refused)} refused, {ignored})"
            mend = "give PNG, JPEG, WebP, BMP, GIF or TIFF files, or another form of docs/data.md"
            raise UserError("", self.name, none, mend)
        shape = (self.channels, *self.size) if self.size and self.channels else self._common_shape(arranged.items)
        notes = [*arranged.notes]
        if arranged.classes and all(map(str.isdecimal, arranged.classes)) and not self.has_names:
            notes.append((NUMBERED, self.name))
        of = () if arranged.conditions is None else arranged.conditions.shape[1:]
        condition = (*of[:1], *shape[1:]) if len(of) == 3 else of
        counts = {"train": arranged.num_train, "held_out": len(arranged.items) - arranged.num_train}
        plan = shape, arranged.classes, counts, arranged.rule, partial(self._chunks, arranged, shape)
        source_hash = self.source_hash(shape) if self.hashes_files else None
        return Plan(*plan, source_hash, arranged.refused, notes, self.is_float, condition)

    def _parts(self, arranged: Arrangement[_Item], shape: Shape) -> list[tuple[str, range]]:
        """The places of chunks, each of one split, and at most 256 images, 4 MiB of pixels and 4 MiB of files."""
        pixels, total, num_train = math.prod(shape), len(arranged.items), arranged.num_train
        rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // pixels, _CHUNK_BYTES // self.item_bytes))
        cuts = [*range(0, num_train, rows), *range(num_train, total, rows), total]
        return [("train" if a < num_train else "held_out", range(a, b)) for a, b in pairwise(cuts)]

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
        parts = self._parts(arranged, shape)
        unreadable, most, earlier = list[str](), max(_FEW, len(arranged.items) // 100), arranged.refused
        requests = [[arranged.items[place] for place in part] for _, part in parts]
        with closing(self.groups(requests, shape)) as groups:
            for (split, part), group in zip(parts, groups, strict=True):
                refused, earlier = [*earlier, *group.refused], ()
                unreadable += [f"{path} ({why})" for path, why in refused if why.startswith(UNREADABLE)]
                if len(unreadable) > most:
                    some = f"has more than {most} images that cannot be read, such as {unreadable[0]}"
                    raise UserError("", self.name, some, "check the disk and what reads them")
                for path, why in group.refused:
                    if why.startswith(OTHER_SHAPE):
                        allowed = f"has images of several sizes: {path!r} is {why}"
                        raise UserError("", self.name, allowed, {"size": min(32, *shape[1:])})
                kept = [part[place] for place in group.kept]
                labels = None if arranged.labels is None else arranged.labels[kept]
                yield Chunk(split, group, labels, self._conditions(arranged, kept, shape))

    def _conditions(self, arranged: Arrangement[_Item], places: list[int], shape: Shape) -> NDArray[np.float32] | None:
        """Those of some images, if any; where they are images, cropped and resized as what they describe."""
        rows = None if arranged.conditions is None else arranged.conditions[places]
        if rows is None or rows.ndim == 2:
            return rows
        sides, whose = [self.sides(arranged.items[place]) for place in places], f"the condition of {self.name}"
        fitted = [_fitted(row, of, shape[1:], whose) for row, of in zip(rows, sides, strict=True)]
        return np.array(fitted, np.float32).reshape(len(places), rows.shape[1], *shape[1:])

    def sides(self, item: _Item) -> Sides:
        """(H, W) of an image before it is cropped and resized, for conditions that are images."""
        raise UserError("", self.name, "takes conditions that are images of arrays alone")


def read_array(file: Path, key: str) -> NDArray[Any]:
    """The numbers in a .npy file that ``key`` names. Raises UserError for another file, OSError as `open_file`."""
    with suppress(ValueError, EOFError), open_file(file) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        if array.dtype.kind in "buif":
            return array
    raise UserError(key, file, "is no array of numbers", "write one with np.save")


def checked_conditions(conditions: NDArray[Any], num: int, name: str) -> NDArray[np.float32]:
    """Those of ``num`` images, [N, K] or [N, C, H, W], of [N] too. Raises UserError for other shapes, and NaN."""
    rows = conditions[:, None] if conditions.ndim == 1 else conditions
    if rows.ndim not in (2, 4) or len(rows) != num or rows.dtype.kind not in "buif" or not rows.size:
        wrong = f"has conditions {rows.dtype} {list(conditions.shape)}, not numbers [{num}, K] or [{num}, C, H, W]"
        raise UserError("", name, wrong)
    if not np.isfinite(rows := as_float32(rows)).all():
        raise UserError("", name, "has conditions that are NaN or infinite")
    return rows


def _fitted(row: NDArray[np.float32], sides: Sides, size: Sides, whose: str) -> NDArray[np.float32]:
    """What describes an image of ``sides``, [C', h, w], repeated by a whole factor, cropped and resized as it is."""
    whole = enlarged(torch.from_numpy(row)[None], sides, whose)[0].numpy()
    planes = row if row.shape[1] >= size[0] and row.shape[2] >= size[1] else whole
    return np.stack([np.asarray(fit(Image.fromarray(plane), size, [])) for plane in planes])


def hold_out(names: Sequence[str], labels: Sequence[Hashable], fraction: float, seed: int) -> set[int]:
    """The indices to hold out: round(n * fraction) of each label's n images, at least one where n >= 2.

    ``fraction`` is in [0, 1); 0 holds out nothing. Images are ranked by SHA-256 of (seed, name), so the choice depends
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
