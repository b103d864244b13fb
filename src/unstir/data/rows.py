"""Rows of images as a source finds them, and their labels, which become names of classes."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from unstir.data.images import UNLABELLED
from unstir.data.listing import natural
from unstir.errors import UserError

NO_CLASS = ()  # in the place of a label that is something else than a whole number or a text


class Rows(NamedTuple):
    """Rows of one split, as the source names it: what they are called, how many, their labels, and how one is read."""

    split: str
    name: str
    labels: Sequence[Hashable]  # None where a row has none
    read: Callable[[int], object]
    classes: tuple[str, ...] = ()  # names of the labels that are numbers
    notes: Sequence[tuple[str, str]] = ()  # (text, what it is of) of images that are no rows


def plain(label: Any) -> Hashable:
    """A label as a whole number or text, None where it is missing, and `NO_CLASS` for what names no one class."""
    if hasattr(label, "item") and getattr(label, "ndim", None) == 0:  # of NumPy or torch
        label = label.item()
    if isinstance(label, bytes):
        return label.decode("utf-8", "backslashreplace")
    if isinstance(label, float) and label.is_integer():
        return int(label)
    return label if label is None or isinstance(label, int | str) else NO_CLASS


def with_plain_labels(rows: Rows, named: bool) -> Rows:
    """The rows with `plain` labels, or None; what names no one class is noted.

    Where numbers are ``named``, a negative one is none: data sets of the Hub write -1 for a label that is withheld.
    """
    labels = list(map(plain, rows.labels))
    why = f"{UNLABELLED}: what it has in its place is neither a whole number nor a text"
    notes = [(why, f"{rows.name}[{number}]") for number, label in enumerate(labels) if label is NO_CLASS]
    missing = [label is NO_CLASS or (named and isinstance(label, int) and label < 0) for label in labels]
    labels = [None if gone else label for label, gone in zip(labels, missing, strict=True)]
    return rows._replace(labels=labels, notes=[*rows.notes, *notes])


def with_names(parts: Sequence[Rows], whose: str) -> tuple[list[Rows], tuple[str, ...]]:
    """The rows with their labels by name, and all names: those that parts list, one list after the other, then others.

    A label is named by the list of its own part; where no part has a list, numbers are names. Raises UserError for a
    number without a name beside others that have one, and where some rows have a label and others none.
    """
    labelled = [rows for rows in parts if any(label is not None for label in rows.labels)]
    listed = dict.fromkeys(name for rows in labelled for name in rows.classes)
    named = [[_name(label, rows, bool(listed), whose) for label in rows.labels] for rows in parts]
    names = [name for of_part in named for name in of_part]
    if 0 < (missing := names.count(None)) < len(names):
        without = f"has {missing} of {len(names)} rows without a label"
        raise UserError("", whose, without, "give all a label, or none (-1 counts as none)")
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
