"""A folder or zip of images as a source: layout to labels and splits, files to chunks.

    root/cat/1.png root/dog/7.png               classes cat and dog; held out by hash, class by class
    root/train/cat/1.png root/test/cat/9.png    the split as given (test, val, valid, validation or held_out)
    root/train/1.png root/ship/2.png            a class named train, for no folder beside it is named as above

One folder that wraps all others is entered. Images outside the class folders are refused, for want of a label; where
they are the majority, all are packed without labels. Order is natural (img2 before img10), train first.

A file beside the images may give the labels, in the place of class folders: metadata.csv or metadata.jsonl, also in
each folder of a split, with file_name (from the file's folder on) and label, or dataset.json (docs/data.md).
"""

import csv
import hashlib
import json
from collections.abc import Generator, Hashable, Mapping, Sequence
from contextlib import closing
from io import StringIO
from pathlib import Path
from posixpath import normpath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unstir.data.classes import KEYS, NO_CLASS, as_label
from unstir.data.decoding import MAX_WORKERS, decode_all
from unstir.data.disk import natural
from unstir.data.images import FURTHER_COLUMN, LEFT_OUT, NOT_A_CLASS, UNLABELLED, Group, Refused, Shape
from unstir.data.listing import Entry, Items, Listing, list_folder, list_zip
from unstir.data.source import HELD_OUT_NAMES, Arrangement, Options, Source, checked_conditions, hold_out, read_array
from unstir.errors import UserError

_FILES, _BYTES = 2_000, 8 << 20  # which a process decodes while another one starts, in a quarter of a second

_TRAIN = "train"
_PARTNERS = {"masks", "labels", "annotations"}  # what lies next to a folder "images", a file for each image
_NO_SPLIT = "no split: images are trained on, for no folder named train with images is beside this one"


def arrange(
    entries: list[Entry], held_out: float, seed: int, by_path: Mapping[str, Hashable] | None = None
) -> Arrangement[str]:
    """Give each candidate its split by the folders it lies in, and its label by them or ``by_path``."""
    paths = sorted((entry.path for entry in entries), key=natural)
    parts = {path: tuple(part for part in path.split("/") if part not in ("", ".")) for path in paths}
    depth = _wrappers(list(parts.values()))
    tops = {p[depth].casefold() for p in parts.values() if len(p) > depth + 1}
    is_split = _TRAIN in tops and (tops == {_TRAIN} or not HELD_OUT_NAMES.isdisjoint(tops))
    given = {_TRAIN} | HELD_OUT_NAMES & tops if is_split else set()  # the top folders that say the split
    outside = [path for path, p in parts.items() if given and (len(p) <= depth + 1 or p[depth].casefold() not in given)]
    for path in outside:
        del parts[path]
    base = depth + bool(given)
    names = _names(parts, base, by_path)
    loose = [path for path in parts if names and path not in names]
    unlabelled = sorted(names) if len(loose) > len(names) and by_path is None else []
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
    where = "outside the class folders, so" if by_path is None else "in the file of labels"
    refused = [(path, f"{where} without a label") for path in loose]
    notes = [(f"{LEFT_OUT}: outside the train and test folders", path) for path in outside]
    why = f"{UNLABELLED}: the folder is not taken for a class, for most images lie outside such folders"
    notes += [(why, path) for path in unlabelled]
    above = dict.fromkeys(part for p in parts.values() for part in p[:-1][: base + 1] if part.casefold() not in given)
    notes += [(_NO_SPLIT, part) for part in above if part.casefold() in HELD_OUT_NAMES]
    return Arrangement(ordered, labels, len(paths) - len(held), classes, rule, refused, notes)


def _names(parts: Mapping[str, tuple[str, ...]], base: int, by_path: Mapping[str, Hashable] | None) -> dict[str, str]:
    """The names of classes by path, of the images that have one: their folders, or what is listed."""
    if by_path is None:
        return {path: p[base] for path, p in parts.items() if len(p) > base + 1}
    listed = {path: by_path.get(normpath(path)) for path in parts}
    return {path: str(label) for path, label in listed.items() if label not in (None, NO_CLASS)}


def _wrappers(paths: list[tuple[str, ...]]) -> int:
    """How many folders wrap all: each alone at its level, with most images in folders of its own."""
    depth = 0
    while paths and all(len(p) > depth + 1 and p[depth] == paths[0][depth] for p in paths):
        if 2 * sum(len(p) > depth + 2 for p in paths) <= len(paths):
            break  # a class rather than a wrapper
        depth += 1
    return depth


class FolderSource(Source[str]):
    """A folder or zip of images."""

    def __init__(self, root: Path, options: Options) -> None:
        super().__init__(options)
        self.root, self.kind = root, "zip" if root.is_file() else "folder"
        self._listing, self._labels = Listing(), Labels()  # of the last stamp

    def stamp(self) -> str:
        """Hash the listing: path, length and time (in a zip: checksum) of every candidate."""
        self._listing = listing = list_zip(self.root) if self.root.is_file() else list_folder(self.root)
        self._bytes = sum(entry.size for entry in listing.entries)
        self.item_bytes = max(1, self._bytes // max(1, len(listing.entries)))
        rows = sorted(map(repr, (*listing.entries, *listing.beside, *listing.refused)))
        with closing(Items(self.root)) as items:
            self._labels = labels_beside(items, [entry.path for entry in listing.beside], self.name)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "backslashreplace")).hexdigest()

    @property
    def arranged(self) -> Arrangement[str]:
        """The paths of the listing, by `arrange`."""
        listing, beside = self._listing, self._labels
        by_folder = arrange(listing.entries, self.held_out, self.options.seed, beside.by_path)
        self._check_pairs(by_folder.classes)
        taken = FURTHER_COLUMN, f"{Path(self.options.conditions).name}: "
        said = [(text, of) for text, of in beside.notes if not (text == taken[0] and of.startswith(taken[1]))]
        refused, notes = [*listing.refused, *by_folder.refused], [*listing.notes, *said, *by_folder.notes]
        there = {normpath(entry.path) for entry in listing.entries}
        gone = [path for path in beside.by_path or () if path not in there]
        notes += [("in the file of labels, but not among the images", path) for path in gone]
        return by_folder._replace(refused=refused, notes=notes, conditions=self._described(by_folder.items))

    def _check_pairs(self, classes: Sequence[str]) -> None:
        """Raise UserError where the classes would be a folder of images and one of their masks."""
        others = {name.casefold() for name in classes} - {"images"}
        if 0 < len(others) < len(classes) and others <= _PARTNERS:
            pairs = f"has the folders {' and '.join(classes)}, which are parts of pairs and no classes"
            raise UserError("source", self.name, pairs, "name the folder of the images alone, or rename these")

    def _described(self, paths: Sequence[str]) -> NDArray[np.float32] | None:
        """The conditions of the images of these paths, [N, K], where a file has them."""
        if not (given := self.options.conditions):
            return None
        listed = [normpath(path) for path in sorted((entry.path for entry in self._listing.entries), key=natural)]
        array = read_array(Path(given), "conditions") if given.endswith(".npy") else None
        try:
            if array is not None:
                numbers = checked_conditions(array, len(listed), given)
                rows = dict(zip(listed, numbers, strict=True))
            else:
                columns, table = _table(given, Path(given).read_text("utf-8-sig"))
                names = [name for name in columns if name not in ("file_name", *KEYS)]
                rows = {normpath(row["file_name"]): np.array([float(row[name]) for name in names]) for row in table}
                if len(rows) < len(table):
                    raise ValueError("a file_name stands there twice")
            return checked_conditions(np.array([rows[normpath(path)] for path in paths]), len(paths), given)
        except (KeyError, OSError, TypeError, ValueError, EOFError, csv.Error) as error:
            raise UserError("conditions", given, f"does not describe each image in numbers ({error})") from None

    def groups(self, requests: Sequence[list[str]], shape: Shape | None) -> Generator[Group, None, None]:
        """Decode files in as many processes as they are worth, or in one to find their shape."""
        worth = 1 + max(sum(map(len, requests)) // _FILES, self._bytes // _BYTES)
        num_workers = min(MAX_WORKERS, len(requests), worth) if shape else 1
        form = {"size": self.size, "channels": self.channels, "is_float": self.is_float}
        with closing(decode_all(self.root, requests, form, shape, num_workers)) as groups:
            for group in groups:
                yield group._replace(digest=f"{group.digest} {self._labels.digest}".rstrip())


class Labels(NamedTuple):
    """What files beside the images say of them."""

    by_path: dict[str, Hashable] | None = None  # None where the folders are the classes
    notes: Sequence[tuple[str, str]] = ()  # (text, path)
    digest: str = ""  # of the files; "" where there are none


def labels_beside(items: Items, files: Sequence[str], whose: str) -> Labels:
    """What the ``files`` of `listing.BESIDE` in a source say. Raises UserError where one is damaged."""
    by_path, notes, digest = None, list[tuple[str, str]](), hashlib.sha256()
    for file in files:
        try:
            data = items.read(file, any_kind=True)
            columns, rows = _table(file, data.decode("utf-8-sig"))
            names = [normpath(f"{file.rpartition('/')[0]}/{row['file_name']}").lstrip("/") for row in rows]
        except (Refused, UnicodeDecodeError, json.JSONDecodeError, RecursionError, csv.Error) as error:
            why = f"is {error}" if isinstance(error, Refused) else "is damaged"
            raise UserError("", f"{whose}: {file}", why, "write it again, or take it away") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            notes.append(("no file of labels of images, ignored", file))
            continue
        digest.update(data)
        key = next((name for name in KEYS if name in columns), "")
        notes += [(FURTHER_COLUMN, f"{file}: {name}") for name in columns if name not in ("file_name", key)]
        if key:
            labels = [as_label(_number(row.get(key))) for row in rows]
            notes += [(NOT_A_CLASS, name) for name, label in zip(names, labels, strict=True) if label is NO_CLASS]
            notes.append(("labels are those of this file, not of the folders" + ": none" * (not labels), file))
            by_path = (by_path or {}) | dict(zip(names, labels, strict=True))
    return Labels(by_path, notes, digest.hexdigest() if files else "")


def _table(file: str, text: str) -> tuple[Sequence[str], list[dict[str, Any]]]:
    if file.endswith(".csv"):
        reader = csv.DictReader(StringIO(text), restval="")
        rows, columns = list(reader), reader.fieldnames or ()
    elif file.endswith(".jsonl"):
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        columns = [*dict.fromkeys(key for row in rows for key in row)]
    else:
        columns = ["file_name", KEYS[0]]
        rows = [dict(zip(columns, pair, strict=True)) for pair in json.loads(text)["labels"] or ()]
    if "file_name" not in columns:
        raise KeyError("file_name")
    return columns, rows


def _number(value: Any) -> Any:
    try:
        return value if not isinstance(value, str) or value.isdecimal() else float(value)
    except ValueError:
        return value or None
