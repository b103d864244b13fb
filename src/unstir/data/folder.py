"""A folder or zip of images as a source: layout to labels and splits, files to chunks.

    root/cat/1.png root/dog/7.png               classes cat and dog; held out by hash, class by class
    root/train/cat/1.png root/test/cat/9.png    the split as given (test, val, valid, validation or held_out)
    root/train/1.png root/ship/2.png            a class named train, for no folder beside it is named as above
    root/1.png root/2.png                       no labels

One folder that wraps all others is entered. Deeper folders belong to their class. Images outside the class folders
are refused, for want of a label; where they are the majority, the folders are not taken for classes and all images are
packed without labels. Order is natural (img2 before img10), train first. What becomes of each kind of file is listed
in `unstir.data.images`.
"""

import hashlib
from collections.abc import Generator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unstir.data.decoding import MAX_WORKERS, decode_all
from unstir.data.images import LEFT_OUT, OTHER_SHAPE, UNLABELLED, Refused, Shape
from unstir.data.listing import Entry, Items, Listing, item_digest, list_folder, list_zip, natural
from unstir.data.source import Chunk, Options, Plan, Source, chunk_ranges, chunk_rows, hold_out, joint_digest
from unstir.errors import UserError

HELD_OUT = 0.1  # fraction held out when neither the caller nor the folder says

_FILES, _BYTES = 2_000, 8 << 20
"""What a process decodes in about the time that another one takes to start, a quarter of a second."""

_TRAIN = "train"
HELD_OUT_NAMES = frozenset(("test", "val", "valid", "validation", "held_out"))


class _Arrangement(NamedTuple):
    """The candidates in packing order: `num_train` of train, then those held out."""

    paths: list[str]
    labels: NDArray[np.int64] | None
    num_train: int
    classes: tuple[str, ...]
    rule: str
    refused: list[tuple[str, str]]
    notes: list[tuple[str, str]]


def arrange(entries: list[Entry], held_out: float, seed: int) -> _Arrangement:
    """Give each candidate its split and label by the folders it lies in."""
    paths = sorted((entry.path for entry in entries), key=natural)
    parts = {path: tuple(part for part in path.split("/") if part not in ("", ".")) for path in paths}
    depth = _wrappers(list(parts.values()))
    tops = {p[depth].casefold() for p in parts.values() if len(p) > depth + 1}
    said = _TRAIN in tops and (tops == {_TRAIN} or not HELD_OUT_NAMES.isdisjoint(tops))
    given = {_TRAIN} | HELD_OUT_NAMES & tops if said else set()  # the top folders that say the split
    outside = [path for path, p in parts.items() if given and (len(p) <= depth + 1 or p[depth].casefold() not in given)]
    for path in outside:
        del parts[path]
    base = depth + bool(given)
    names = {path: p[base] for path, p in parts.items() if len(p) > base + 1}
    loose = [path for path in parts if names and path not in names]
    unlabelled = sorted(names) if len(loose) > len(names) else []
    if unlabelled:
        names, loose = {}, []
    paths = [path for path in parts if not names or path in names]
    if len(given) > 1:
        held = {path for path in paths if parts[path][depth].casefold() != _TRAIN}
        rule = f"the folders named {', '.join(sorted(given - {_TRAIN}))}"
    else:
        keys = ["/".join(parts[path][base:]) for path in paths]
        held = {paths[i] for i in hold_out(keys, [names.get(path) for path in paths], held_out, seed)}
        rule = f"by class, {held_out:.4g} of each, ranked by the hash of (seed {seed}, path)"
    ordered = sorted(paths, key=lambda path: path in held)
    classes = tuple(sorted(set(names.values()), key=natural))
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[names[path]] for path in ordered], np.int64) if names else None
    refused = [(path, "outside the class folders, so without a label") for path in loose]
    notes = [(f"{LEFT_OUT}: outside the train and test folders", path) for path in outside]
    why = f"{UNLABELLED}: the folder is not taken for a class, for most images lie outside such folders"
    notes += [(why, path) for path in unlabelled]
    return _Arrangement(ordered, labels, len(paths) - len(held), classes, rule, refused, notes)


def _wrappers(paths: list[tuple[str, ...]]) -> int:
    """Count the folders that wrap everything: one folder at its level, with most images in folders of its own."""
    depth = 0
    while paths and all(len(p) > depth + 1 and p[depth] == paths[0][depth] for p in paths):
        if 2 * sum(len(p) > depth + 2 for p in paths) <= len(paths):
            break  # a class rather than a wrapper
        depth += 1
    return depth


class FolderSource(Source):
    """A folder or zip of images; `size` None keeps their one common shape."""

    def __init__(self, root: Path, options: Options) -> None:
        super().__init__(options, None, 3, HELD_OUT)
        self.root, self.kind = root, "zip" if root.is_file() else "folder"
        self._listing = Listing()  # of the last stamp

    def stamp(self) -> str:
        """Hash the listing: path, length and time (in a zip: checksum) of every candidate."""
        self._listing = listing = list_zip(self.root) if self.root.is_file() else list_folder(self.root)
        rows = sorted((*map(repr, listing.entries), *map(repr, listing.refused)))
        return hashlib.sha256("\n".join(rows).encode("utf-8", "backslashreplace")).hexdigest()

    def source_hash(self, shape: Shape) -> str:
        """Hash the content of every candidate of the last stamp, as packing does."""
        digests, arranged = list[str](), self._arranged()
        with closing(Items(self.root)) as items:
            for _, first, stop in self._ranges(arranged, shape):
                digest = hashlib.sha256()
                for path in arranged.paths[first:stop]:
                    data = None
                    with suppress(Refused):
                        data = items.read(path)
                    digest.update(item_digest(path, data))
                digests.append(digest.hexdigest())
        return joint_digest(digests)

    def plan(self, staging: Path) -> Plan:
        """Arrange the files of the last stamp, and find the common shape when no size is given."""
        listing, arranged = self._listing, self._arranged()
        refused, notes = listing.refused + arranged.refused, listing.notes + arranged.notes
        if not arranged.paths:
            none = f"has no images to pack ({len(refused)} refused, {len(listing.notes)} ignored)"
            raise UserError("", self.name, none, "allowed are PNG, JPEG, WebP, BMP, GIF and TIFF files")
        shape = (self.channels, self.size, self.size) if self.size else self._common_shape(arranged.paths)
        chunks = partial(self._chunks, arranged, shape)
        return Plan(shape, arranged.classes, len(arranged.paths), arranged.rule, chunks, None, refused, notes)

    def _arranged(self) -> _Arrangement:
        return arrange(self._listing.entries, self.held_out, self.options.seed)

    def _ranges(self, arranged: _Arrangement, shape: Shape) -> list[tuple[str, int, int]]:
        sizes = [entry.size for entry in self._listing.entries]
        rows = chunk_rows(shape, max(1, sum(sizes) // max(1, len(sizes))))
        return chunk_ranges(len(arranged.paths), arranged.num_train, rows)

    def _common_shape(self, paths: list[str]) -> Shape:
        """The shape of the first image that decodes."""
        with closing(decode_all(self.root, ([path] for path in paths), None, self.channels, None, 1)) as replies:
            for reply in replies:
                if len(reply.pixels):
                    _, channels, height, width = reply.pixels.shape
                    return channels, height, width
        raise UserError("", self.name, f"has no file that can be decoded among {len(paths)}, such as {paths[0]!r}")

    def _chunks(self, arranged: _Arrangement, shape: Shape) -> Generator[Chunk, None, None]:
        ranges = self._ranges(arranged, shape)
        worth = 1 + max(len(arranged.paths) // _FILES, sum(entry.size for entry in self._listing.entries) // _BYTES)
        num_workers = min(MAX_WORKERS, max(1, len(ranges)), worth)
        requests = (arranged.paths[first:stop] for _, first, stop in ranges)
        with closing(decode_all(self.root, requests, self.size, self.channels, shape, num_workers)) as replies:
            for (split, first, stop), reply in zip(ranges, replies, strict=True):
                for path, why in reply.refused:
                    if why.startswith(OTHER_SHAPE):
                        raise self.differing(path, why, shape)
                labels = None if arranged.labels is None else arranged.labels[first:stop][reply.kept]
                yield Chunk(split, reply.pixels, labels, reply.refused, reply.notes, reply.digest)
