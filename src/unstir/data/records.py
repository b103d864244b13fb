"""Images as rows of something: arrays, a table, shards of samples, a torch Dataset. One source packs them all.

What differs is how rows are found and read (`Rows`); splits, labels, chunks and digests are here. A row may be an image
file's bytes, an image of Pillow, or an array. Arrays whose values are not those of images are brought to them by one
rule for all, which is noted (docs/data.md); values outside its range are refused.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unstir.data.classes import NO_CLASS, as_label
from unstir.data.disk import item_digest, natural
from unstir.data.images import (
    LEFT_OUT,
    NOT_A_CLASS,
    UNREADABLE,
    Decoded,
    Group,
    Outcome,
    Refused,
    Shape,
    Sides,
    convert,
    decode,
    from_16_bits,
    from_planes,
    group_of,
    levels_left,
)
from unstir.data.source import HELD_OUT_NAMES, Arrangement, Source, hold_out
from unstir.errors import OF_THE_DISK, OF_THE_MACHINE, UserError

BROKEN = OSError, SyntaxError  # what reading a damaged file raises, the latter by Pillow
_NEAR = 2**-4  # levels by which the numbers of half precision differ from k/255
Rule = Callable[[Any], Any]


class Rows(NamedTuple):
    """Rows of one split, as the source names it: their name, their labels, and how one is read."""

    split: str
    name: str
    labels: Sequence[Hashable]  # None where a row has none
    read: Callable[[int], object]
    classes: tuple[str, ...] = ()  # names of the labels that are numbers
    notes: Sequence[tuple[str, str]] = ()  # (text, what it is of) of images that are no rows
    conditions: NDArray[Any] | None = None  # [n, K] or [n, C', h, w]
    names: Sequence[str] = ()  # of the rows, by default the name with a number


def _with_plain_labels(rows: Rows, named: bool) -> Rows:
    """The rows with labels by `as_label`: None for what names no class, and for negative numbers beside names."""
    labels = list(map(as_label, rows.labels))
    notes = [(NOT_A_CLASS, f"{rows.name}[{number}]") for number, label in enumerate(labels) if label is NO_CLASS]
    missing = [label is NO_CLASS or (named and isinstance(label, int) and label < 0) for label in labels]
    labels = [None if gone else label for label, gone in zip(labels, missing, strict=True)]
    return rows._replace(labels=labels, notes=[*rows.notes, *notes])


def _with_names(parts: Sequence[Rows], whose: str) -> tuple[list[Rows], tuple[str, ...]]:
    """The rows with labels by name, and all names, listed ones first. UserError where some have none."""
    labelled = [rows for rows in parts if any(label is not None for label in rows.labels)]
    listed = dict.fromkeys(name for rows in labelled for name in rows.classes)
    named = [[_name(label, rows, bool(listed), whose) for label in rows.labels] for rows in parts]
    names = [name for of_part in named for name in of_part]
    if 0 < (missing := names.count(None)) < len(names):
        without = f"has {missing} of {len(names)} rows without a label"
        raise UserError("", whose, without, "give all a label, or none" + " (-1 counts as none)" * bool(listed))
    further = {name for name in names if name is not None}.difference(listed)
    by_name = [rows._replace(labels=of_part) for rows, of_part in zip(parts, named, strict=True)]
    return by_name, (*listed, *sorted(further, key=natural))


def _name(label: Hashable, rows: Rows, named: bool, whose: str) -> str | None:
    if not isinstance(label, int):
        return None if label is None else str(label)
    if 0 <= label < len(rows.classes):
        return rows.classes[label]
    if named:
        mend = "give all parts the same list of class names, or labels as text"
        raise UserError("", f"{whose}: {rows.name}", f"has the label {label}, which is none of its classes", mend)
    return str(label)


class _Place(NamedTuple):
    rows: Rows
    number: int
    name: str
    label: Hashable


class Records(Source[_Place]):
    """Rows as a source; `rows` says where they are found."""

    looked_at = 64  # rows that tell their type and their channels

    @abstractmethod
    def rows(self) -> list[Rows]:
        """All rows. Raises UserError where there are none, or no images among them."""

    def _look(self, rows: list[Rows]) -> None:
        """See in some rows whether values are kept as float32, and how many channels they have."""
        asked, own = self.options, 0
        places = [place for part in rows for place in _places(part)]
        for place in places[:: -(-len(places) // self.looked_at) or 1]:
            try:
                values = place.rows.read(place.number)
                if isinstance(values, bytes | bytearray | memoryview | Image.Image):
                    return
                array = _channels_last(np.asarray(values))
            except (*BROKEN, Refused):
                continue
            own = own or (array.shape[2] if array.ndim == 3 else 1)
            beyond = asked.depth == "auto" and not is_8_bit(array)
            self.is_float = self.is_float or beyond
            if self.is_float or not np.issubdtype(array.dtype, np.floating):
                break
        if own and (self.is_float or own not in (1, 3, 4)):
            if asked.channels not in (None, own):
                raise UserError("channels", asked.channels, f"is not the {own} of {self.name}", {"channels": own})
            self.channels = own
        elif own and asked.channels not in (None, 1, 3, own):
            raise UserError("channels", asked.channels, "is not allowed; use one of 1, 3", {"channels": min(own, 3)})

    def groups(self, requests: Sequence[list[_Place]], shape: Shape | None) -> Generator[Group, None, None]:
        """Decode rows in this process."""
        for places in requests:
            yield group_of(map(self._outcome, places), shape)

    @cached_property
    def arranged(self) -> Arrangement[_Place]:
        """The rows by their splits: train, and those of `HELD_OUT_NAMES` beside it."""
        parts = self.rows()
        self._look(parts)
        named = any(rows.classes for rows in parts)
        parts = [_with_plain_labels(rows, named) for rows in parts]
        if not any(rows.split == "train" for rows in parts):  # then what is not for testing is
            parts = [rows if rows.split in HELD_OUT_NAMES else rows._replace(split="train") for rows in parts]
        splits = {rows.split for rows in parts}
        labelled = {rows.split for rows in parts if any(label is not None for label in rows.labels)}
        known = {"train", *HELD_OUT_NAMES} & splits if "train" in splits else splits
        withheld = known - labelled if "train" in labelled else set[str]()
        known = known - withheld
        train, held, notes = list[_Place](), list[_Place](), list[tuple[str, str]]()
        packed, classes = _with_names([rows for rows in parts if rows.split in known], self.name)
        for rows in packed:
            notes += rows.notes
            (held if "train" in splits and rows.split != "train" else train).extend(_places(rows))
        for rows in parts:
            if rows.split not in known:
                why = f"{LEFT_OUT}: of the split {rows.split}" + ", which has no labels" * (rows.split in withheld)
                notes += [(why, place.name) for place in _places(rows)]
        rule = f"the splits named {', '.join(sorted(known - {'train'}))}"
        if not held:
            names, labels_of_train = [place.name for place in train], [place.label for place in train]
            chosen = hold_out(names, labels_of_train, self.held_out, self.options.seed)
            held = [train[i] for i in sorted(chosen)]
            train = [place for i, place in enumerate(train) if i not in chosen]
            rule = f"by class, {self.held_out:.4g} of each, ranked by the hash of (seed {self.options.seed}, row)"
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[str(place.label)] for place in train + held], np.int64) if classes else None
        return Arrangement(train + held, labels, len(train), classes, rule, (), notes, _conditions(train + held))

    def sides(self, item: _Place) -> Sides:
        """(H, W) of the array that a row is."""
        height, width, *_ = _channels_last(np.asarray(item.rows.read(item.number))).shape
        return height, width

    def _outcome(self, place: _Place) -> Outcome:
        identity, notes = _digest(place, None), list[str]()
        try:
            item = place.rows.read(place.number)
            identity = _digest(place, item)
            if isinstance(item, bytes | bytearray | memoryview):
                outcome: Decoded | Refused = decode(bytes(item), None, self.size, self.channels, is_float=self.is_float)
            elif self.is_float or self.channels not in (1, 3):
                values = _channels_last(np.asarray(item))
                values = values if self.is_float else _as_bytes(values, notes)
                planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
                outcome = from_planes(planes, self.size, self.channels, self.is_float, notes)
            else:
                image = item if isinstance(item, Image.Image) else _as_image(np.asarray(item), notes)
                outcome = convert(image, self.size, self.channels, notes)
        except Refused as refusal:
            outcome = refusal
        except BROKEN as error:
            number = getattr(error, "errno", None)
            if number in OF_THE_MACHINE and number not in OF_THE_DISK:
                raise
            outcome = Refused(f"{UNREADABLE}: {getattr(error, 'strerror', '') or error}")
        return place.name, identity, outcome


def _as_image(values: NDArray[Any], notes: list[str]) -> Image.Image:
    values = _channels_last(values)
    if values.ndim == 3 and values.shape[2] not in (3, 4):
        raise Refused(f"{values.shape[2]} channels, and others have 1 or 3")
    return Image.fromarray(np.ascontiguousarray(_as_bytes(values, notes)))


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    """An array of one image as [H, W] or [H, W, C]. Raises Refused."""
    if values.ndim == 3 and _channels_first(*values.shape):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "buif":
        raise Refused(f"an array {values.dtype} {list(values.shape)}, which is no image; give [H, W] or [C, H, W]")
    return values


def _as_bytes(values: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all():
            raise Refused("values that are NaN or infinite; depth=float keeps NaN as missing")
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:
            raise Refused(f"values from {low:.3g} to {high:.3g}, which depth=float keeps; 8 bits are of 0..1")
        levels, values = len(np.unique(values)), np.round(values * 255.0).astype(np.uint8)
        if levels > len(np.unique(values)):
            notes.append(f"floating point rounded to 8 bits ({levels_left(levels, values)})")
    if values.dtype != np.uint8:
        raise Refused(f"values of type {values.dtype}, which depth=float keeps; give uint8, or floating point in 0..1")
    return values


def _channels_first(first: int, second: int, third: int) -> bool:
    """Whether an array of these sides is [C, H, W] and not [H, W, C]. Raises Refused where nobody can tell."""
    known = first in (1, 3), third in (1, 3, 4)
    if any(known) and not all(known):
        return known[0]
    if not any(known) and (first == second) == (second == third) and first != third:
        return first < third
    if first != second and second != third:
        shape = [first, second, third]
        raise Refused(f"an array of shape {shape} may be [C, H, W] or [H, W, C]; give image files")
    return first != second


def _conditions(places: Sequence[_Place]) -> NDArray[np.float32] | None:
    if not places or any(place.rows.conditions is None for place in places):
        return None
    return np.stack([place.rows.conditions[place.number] for place in places])  # type: ignore[index]


def _places(rows: Rows) -> list[_Place]:
    names = rows.names or [f"{rows.name}[{number}]" for number in range(len(rows.labels))]
    return [_Place(rows, *row) for row in zip(range(len(names)), names, rows.labels, strict=True)]


def _digest(place: _Place, item: object) -> bytes:
    if item is None:
        data = None
    elif isinstance(item, Image.Image):
        data = f"{item.mode} {item.size}".encode() + item.tobytes()
    elif isinstance(item, bytes | bytearray | memoryview):
        data = bytes(item)
    else:
        array = np.asarray(item)
        data = f"{array.dtype} {array.shape}".encode() + array.tobytes()
    conditions = place.rows.conditions
    if conditions is not None and data is not None:
        data += conditions[place.number].tobytes()
    return item_digest(f"{place.name}\0{place.label or ''}", data)  # type: ignore[truthy-bool]  # labels may be 0


def split_of(name: str, folder: str = "") -> str:
    """The split that a name begins with (SPLIT-00000-of-00002: any), or that its folder is; "train" without one."""
    if numbered := re.match(r"(\w+)-[0-9]{5}-of-[0-9]{5}", name):
        return numbered[1].casefold()
    words = re.split(r"[\s_.-]+", name.casefold())[0], folder.casefold()
    return next((word for word in words if word in HELD_OUT_NAMES or word == "train"), "train")


def rule_of(arrays: Sequence[NDArray[Any]], what: str, depth: str) -> tuple[Rule, list[tuple[str, str]]]:
    """The rule for arrays like these, and what it does as a note of ``what`` they are."""
    arrays = [array for array in arrays if array.size and array.dtype.kind in "iuf" and array.dtype != np.uint8]
    if not arrays or depth == "float":
        return _as_it_is, []
    kind, low, high = arrays[0].dtype, min(map(np.min, arrays)), max(map(np.max, arrays))
    if kind.kind == "f":
        within = -1 <= low < 0 and high <= 1
        if within and (depth == "8" or all(is_8_bit(_raised(image)) for array in arrays for image in array)):
            return _within(-1, 1, _raised), [("values in -1..1 scaled to 0..255", what)]
    elif low >= 0 and high <= 255:
        return _within(0, 255, lambda v: v.astype(np.uint8)), [(f"{kind} in 0..255 taken as 8 bits", what)]
    elif kind.newbyteorder("=") == np.uint16:
        seen = np.zeros(1 << 16, bool)
        for array in arrays:
            for image in array:
                seen[image] = True
        values = np.flatnonzero(seen)
        left = levels_left(len(values), from_16_bits(values))
        return _within(0, 65535, from_16_bits), [("uint16 scaled to 8 bits", f"{what} ({left})")]
    return _as_it_is, []


def is_8_bit(values: NDArray[Any]) -> bool:
    """Whether no value is floating point, or each is one of 256 levels in 0..1."""
    if not np.issubdtype(values.dtype, np.floating):
        return True
    with np.errstate(invalid="ignore", over="ignore"):
        levels = values.astype(np.float64) * 255
        return bool(((levels >= 0) & (levels <= 255) & (np.abs(levels - np.round(levels)) < _NEAR)).all())


def _as_it_is(values: Any) -> Any:
    return values


def _raised(values: NDArray[Any]) -> NDArray[Any]:
    return (values.astype(np.float32) + 1) / 2


def _within(low: int, high: int, rule: Rule) -> Rule:

    def checked(item: Any) -> Any:
        values = np.asarray(item)
        if values.size and not low <= values.min() <= values.max() <= high:
            raise Refused(f"values from {values.min():.3g} to {values.max():.3g}, where others lie in {low}..{high}")
        return rule(values)

    return checked
