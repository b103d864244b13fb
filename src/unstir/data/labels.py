"""Classes by name or by number."""

import difflib
import re
import unicodedata
from collections.abc import Sequence

from unstir.errors import UserError

_SHOWN = 20


def class_number(classes: Sequence[str], text: str) -> int:
    """Find a class by its name or its number in 0..len(classes)-1; `name:TEXT` and `number:TEXT` say which is meant.

    Where classes are named by digits, a text may be the name of one class and the number of another: that is refused,
    not guessed. Raises UserError naming what is near, or what there is.
    """
    if not classes:
        raise UserError(f"label {text!r} was given, but the data has no classes; leave the label out")
    names = {form(name): number for form in (_canonical, str) for number, name in enumerate(classes)}
    wanted = text if text in names else _canonical(text)
    named, numbered = names.get(wanted), _number(wanted, len(classes))
    if named is None and numbered is None:
        kind, _, rest = wanted.partition(":")
        named = names.get(rest) if kind == "name" else None
        numbered = _number(rest, len(classes)) if kind == "number" else None
    found = numbered if named is None else named
    if found is None:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise UserError(f"label {shown!r} is no class of the data; {_remedy(classes, wanted)}")
    if numbered is not None and numbered != found:
        both = f"is the name of class {named} and the number of class {classes[numbered]!r}"
        raise UserError(f"label {text!r} {both}; write name:{text} or number:{text}")
    return found


def _canonical(name: str) -> str:
    """The form in which names are compared: macOS takes letters and their accents apart."""
    return unicodedata.normalize("NFC", name).strip()


def _number(text: str, num_classes: int) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) and int(text) < num_classes else None


def _remedy(classes: Sequence[str], wanted: str) -> str:
    folded = {_canonical(name).casefold(): name for name in reversed(classes)}
    if near := difflib.get_close_matches(wanted.casefold(), folded, n=1):
        return f"did you mean {folded[near[0]]!r}?"
    names = ", ".join(map(repr, classes[:_SHOWN])) + (", ..." if len(classes) > _SHOWN else "")
    return f"give a number in 0..{len(classes) - 1}, or one of {names}"
