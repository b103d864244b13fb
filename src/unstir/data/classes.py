"""Classes as people write them, by name or number, and lists of their names compared."""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any

from unstir.errors import UserError, nearest, printable

KEYS = "label", "labels", "class", "fine_label", "cls"
"""The names of a column of labels; of several the first."""
NO_CLASS = ()  # in the place of a label that is neither a whole number nor a text


def as_label(label: Any) -> Hashable:
    """A label as a whole number or text, None where it is missing, and `NO_CLASS` for what names no one class."""
    if hasattr(label, "item") and getattr(label, "ndim", None) == 0:  # of NumPy or torch
        label = label.item()
    if isinstance(label, bytes):
        return label.decode("utf-8", "backslashreplace")
    if isinstance(label, float) and label.is_integer():
        return int(label)
    return label if label is None or isinstance(label, int | str) else NO_CLASS


def class_number(classes: Sequence[str], text: str, key: str = "label") -> int:
    """The number in 0..len(classes)-1 of the class that a text names; `name:TEXT` and `number:TEXT` say what it is.

    Raises UserError about ``key`` where it names none, or two.
    """
    if not classes:
        raise UserError(key, text, "was given, but the data has no classes", {key: None})
    names = {form(name): number for form in (_canonical, str) for number, name in enumerate(classes)}
    wanted = text if text in names else _canonical(text)
    named, numbered = names.get(wanted), _number(wanted, len(classes))
    if named is None and numbered is None:
        kind, _, rest = wanted.partition(":")
        named = names.get(rest) if kind == "name" else None
        numbered = _number(rest, len(classes)) if kind == "number" else None
    number = numbered if named is None else named
    if number is None:
        containing = [name for name in classes if wanted and plain(wanted) in plain(name)]
        near = some(containing) or nearest(wanted, map(_canonical, classes))
        listed = f"give a number in 0..{len(classes) - 1}, or a name, such as {some(classes)}"
        raise UserError(key, text, "is no class of the data", f"did you mean {near}?" if near else listed)
    if numbered is not None and numbered != number:
        both = f"is the name of class {named} and the number of class {classes[numbered]}"
        raise UserError(key, text, both, ({key: f"name:{text}"}, {key: f"number:{text}"}))
    return number


def matched(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...] | None:
    """The number among ``classes`` of each of as many ``names`` that somebody else gave; None for other classes.

    Case, spaces, - and _ make no difference to names in the same order. Numbers alone, as of data without names, say
    nothing: they are matched by their place, unless both lists have the same ones.
    """
    if len(names) != len(classes):
        return None
    ours, theirs = ([_canonical(printable(name)) for name in listed] for listed in (names, classes))
    same = sorted(ours) == sorted(theirs)
    numbers = any(all(map(str.isdecimal, listed)) for listed in (ours, theirs))
    if [*map(plain, names)] == [*map(plain, classes)] or (numbers and not same):
        return tuple(range(len(ours)))
    return tuple(map(theirs.index, ours)) if same and len(set(ours)) == len(ours) else None


def plain(name: str) -> str:
    """A name as it is compared: in small letters, with a space for each run of spaces, - and _."""
    return re.sub(r"[\s_-]+", " ", _canonical(printable(name)).casefold())


def some(names: Sequence[str], first: int = 0) -> str:
    """At most four names, each of at most 40 characters, beginning with number ``first``, for a message."""
    shown = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[first : first + 4]]
    return ", ".join(shown) + ", ..." * (len(names) > first + 4)


def _canonical(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()  # macOS takes letters and their accents apart


def _number(text: str, num_classes: int) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) and int(text) < num_classes else None
