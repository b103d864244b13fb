"""Rows of images as a source finds them, and their labels where parts of a source number the classes differently."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from unstir.data.images import UNLABELLED
from unstir.data.listing import natural
from unstir.errors import UserError

NO_CLASS = ()  # in the place of a label that is something else than a number or a text


class Rows(NamedTuple):
    """Rows of one split, as the source names it: what they are called, how many, their labels, and how one is read."""

    split: str
    name: str
    labels: Sequence[Hashable]  # None where a row has none
    read: Callable[[int], object]
    classes: tuple[str, ...] = ()  # names of the labels that are numbers
    notes: Sequence[tuple[str, str]] = ()  # (text, what it is of) of images that are no rows


def with_plain_labels(rows: Rows) -> Rows:
    """The rows with labels that are numbers or texts, or None; lists and the like name no one class, which is noted."""
    labels = [plain(label) for label in rows.labels]
    why = f"{UNLABELLED}: what it has in its place is neither a number nor a text"
    notes = [(why, f"{rows.name}[{number}]") for number, label in enumerate(labels) if label is NO_CLASS]
    return rows._replace(labels=[None if label is NO_CLASS else label for label in labels], notes=[*rows.notes, *notes])


def plain(label: Any) -> Hashable:
    """A label as a number or text, None where it is missing, as NaN is, and `NO_CLASS` for what names no one class."""
    if hasattr(label, "item") and getattr(label, "ndim", None) == 0:  # of NumPy or torch
        label = label.item()
    if isinstance(label, bytes):
        return label.decode("utf-8", "backslashreplace")
    if isinstance(label, float) and math.isnan(label):
        return None
    return NO_CLASS if isinstance(label, list | tuple | dict | set) or hasattr(label, "ndim") else label


def in_one_list(found: Sequence[Rows], whose: str) -> tuple[list[Rows], tuple[str, ...]]:
    """The rows with labels that are numbers of one list of classes, and that list; () where no part names its classes.

    Where all parts with labels have one list, nothing changes. Otherwise each label gets the name that its own part
    gives it, or that it is, and becomes the number of this name in the joint list: the parts' lists one after the
    other, then further names in natural order. Raises UserError for a number that its own part gives no name.
    """
    labelled = [rows for rows in found if any(label is not None for label in rows.labels)]
    lists = list(dict.fromkeys(rows.classes for rows in labelled))
    if len(lists) < 2:
        return list(found), (lists or [()])[0]
    named = [_named(rows, whose) for rows in found]
    listed = [name for names in lists for name in names]
    further = {name for names in named for name in names if name is not None}.difference(listed)
    classes = tuple(dict.fromkeys((*listed, *sorted(further, key=natural))))
    number: dict[str | None, Hashable] = {name: index for index, name in enumerate(classes)}
    number[None] = None
    return [rows._replace(labels=[*map(number.get, names)]) for rows, names in zip(found, named, strict=True)], classes


def _named(rows: Rows, whose: str) -> list[str | None]:
    """The labels of one part by name."""
    classes, names = rows.classes, list[str | None]()
    for label in rows.labels:
        if isinstance(label, int) and 0 <= label < len(classes):
            names.append(classes[label])
        elif label is None or isinstance(label, str):
            names.append(label)
        else:
            mend = "give all parts the same list of class names, or labels as text"
            raise UserError("", f"{whose}: {rows.name}", f"gives its label {label} no name, as other parts do", mend)
    return names
