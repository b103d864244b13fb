"""The one exception a user's mistake raises, how foreign names and values are shown, and errors of others in words."""

import dataclasses
import difflib
import errno
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar
from unicodedata import category

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Settings = TypeVar("Settings")

OF_THE_MACHINE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space of your quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f, or the file system's)",
    errno.EMFILE: "raise the limit of open files (ulimit -n 4096)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs",
    errno.EIO: "the disk or its connection is failing: check it (dmesg), copy what it holds to another one",
    errno.ESTALE: "the network folder has gone: mount it again",
    errno.ETIMEDOUT: "the network folder does not answer: mount it again",
}
"""What to do about an error of the system, by its number, where the name that was given is not at fault."""

REMEDIES = {
    **OF_THE_MACHINE,
    errno.EACCES: "ask for the right to it (chmod), or name another",
    errno.EPERM: "the system forbids that there (see lsattr, mount); name another",
    errno.EROFS: "its disk is mounted read-only; name a place on another",
    errno.ENOENT: "put back what was moved or removed, or name one that exists",
    errno.EEXIST: "name another",
    errno.ENOTEMPTY: "something was put in it meanwhile; name another",
    errno.ENOTDIR: "a part of its path is a file; name another",
    errno.EISDIR: "it is a folder; name a file",
    errno.ELOOP: "its links lead in a circle; name the file or folder itself",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EBUSY: "another program uses it; end that, or name another",
    errno.ENODEV: "name one on a disk",
    errno.ENXIO: "name an ordinary file or folder",
}
"""What to do about a file or folder that could not be used, by the system's number of the error."""

PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors of the place that was named."""


def remedy(error: OSError, elsewhere: str = "") -> str:
    """The system's reason for an error, and what to do about it: ``elsewhere`` where another place would do."""
    number = error.errno or 0
    what = elsewhere if elsewhere and number in PLACES else REMEDIES.get(number, "check the path and the disk")
    return f"{error.strerror or 'it failed'}; {what}"


class UserError(Exception):
    """A mistake the user can mend: what was given, what is allowed, the remedy, in one line, which is made `printable`.

    The command line prints the message alone and exits with status 2.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


class KeptSettingsError(UserError):
    """A run that goes on was asked for other settings than it can take: ``keys``, such as train.length."""

    def __init__(self, message: object, keys: Iterable[str]) -> None:
        self.keys = tuple(keys)
        super().__init__(message)


class OutOfMemoryError(UserError):
    """The memory is used up; the message says what to lower."""


NO_MEMORY = re.compile(
    r"out of memory|failed to map segment|can't allocate memory|bad_alloc|_ALLOC(ATION)?_FAILED|"
    "could not create a primitive(?! descriptor)"
)
"""What errors say that are of no kind of their own: torch's of a GPU and the CPU, those of the system's allocator and
loader, of NVIDIA's libraries (CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED), and
oneDNN's, which fails to create a *descriptor* for what this processor cannot do.
"""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's or torch's says that the memory is used up."""
    of_others = isinstance(error, RuntimeError | ImportError) and bool(NO_MEMORY.search(str(error)))
    return isinstance(error, MemoryError) or of_others


@contextmanager
def within_memory(lower: str) -> Iterator[None]:
    """Where memory runs out in this block, raise OutOfMemoryError that says what to ``lower``, such as --grids.num."""
    try:
        yield
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory{asked_for(error)}; lower {lower}, or end other programs") from None


def asked_for(error: BaseException) -> str:
    """What could not be had, as ", at 2.50 GiB more"; "" where the error does not say."""
    asked = re.search(r"[Tt]ried to allocate ([0-9.]+) (\w+)", str(error))
    if asked is None:
        return ""
    number, unit = asked.groups()
    if unit == "bytes" and float(number) >= 1e6:
        number, unit = f"{float(number) / 1e9:,.3f}", "GB"
    return f", at {number} {unit} more"


def printable(name: object) -> str:
    r"""The text of a foreign name in one line that a terminal can show: control characters as \x1b, \n, \u202e.

    Names of files and classes come from others: they may hold terminal commands, line ends, marks that turn the
    direction of writing, and bytes that are not UTF-8 (Python's surrogates), which are shown as \xe9. Letters and
    spaces of every language, and what joins them, stay as they are.
    """
    text = str(name)
    return text if text.isprintable() else "".join(c if c.isprintable() or _joins(c) else _escaped(c) for c in text)


def _joins(character: str) -> bool:
    return category(character) == "Zs" or character in "\u200c\u200d"


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode("ascii")


ALMOST = 0.8  # how like two names are that differ by a slip, such as digts and digits


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word whose letters are most like those of this one, capital or not; None where none is like it."""
    plain = {each.lower(): each for each in reversed([*known])}  # of those that differ by capitals the first
    return next((plain[near] for near in difflib.get_close_matches(word.lower(), plain, n=1, cutoff=cutoff)), None)


def short(value: object) -> str:
    """A value in at most 40 characters."""
    if type(value) is int and value.bit_length() > 53:
        return "too large a number"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = "a table" if isinstance(value, dict) else ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


OF_SETTING = re.compile("[a-zA-Z_0-9]+=")  # how a message begins that is of one setting


class MisfitError(ValueError):
    """Settings that do not go together, for validators of settings: what is wrong, up to its remedies, and these, of
    which each is enough: values to give by the names of their settings, or words.
    """

    def __init__(self, what: str, *remedies: Mapping[str, Any] | str) -> None:
        self.what, self.remedies = what, remedies
        super().__init__(self.said())

    def said(self, section: str = "", typed: bool = False) -> str:
        """The message; the remedies are settings of this ``section``, and options where these were ``typed``."""
        return f"{self.what} {', or '.join(_remedy(each, section, typed) for each in self.remedies)}".strip()


def _remedy(remedy: Mapping[str, Any] | str, section: str, typed: bool) -> str:
    if isinstance(remedy, str):
        return remedy
    named = {f"{section}.{name}" if section else name: value for name, value in remedy.items()}
    if typed:
        return " ".join(option(*each) for each in named.items())
    return " with ".join(f"{name}={json.dumps(value)}" for name, value in named.items())


def option(name: str, value: object) -> str:
    """A setting as it is typed, such as ``--train.warmup "6 steps"`` or ``--data.no-flip``."""
    section, _, key = name.rpartition(".")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--{section}.no-{key}"
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join([f"--{name}", *map(_as_typed, values)])


def _as_typed(value: object) -> str:
    text = str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..."
    return f'"{text}"' if not text or " " in text else text


def explain(error: "ValidationError", near_key: Callable[[str], str | None], typed: bool = False) -> str:
    """An error of pydantic as one line: each key, what was given and what is allowed, or the near key of an unknown.

    Where the settings were ``typed`` as options they are written as such.
    """
    parts, items = [], error.errors()
    for item in items:
        if item["type"] == "too_short" and any(other["loc"][:-1] == item["loc"] for other in items):
            continue  # its values that are refused were not counted
        key = ".".join(str(part) for part in item["loc"] if not (typed and isinstance(part, int)))
        if item["type"] == "unexpected_keyword_argument":
            near = near_key(key)
            parts.append(f"unknown key {key}" + (f"; did you mean {near}?" if near else ""))
        elif item["type"] == "value_error" and not isinstance(item["input"], str | int | float):  # of a section
            cause = item["ctx"]["error"]
            said = cause.said(key, typed) if isinstance(cause, MisfitError) else str(cause)
            parts.append(f"{key}{'.' if OF_SETTING.match(said) else ': '}{said}" if key else said)
        else:
            parts.append(_of_value(key, item, typed))
    return "; ".join(parts)


def _of_value(key: str, item: "ErrorDetails", typed: bool) -> str:
    """What is wrong with the value of one setting."""
    is_own = item["type"] == "value_error"
    must = item["msg"].removeprefix("Value error, ") if is_own else f"must be {_allowed(item)}"
    if typed and key:
        return f"{option(key, item['input'])} {must}"
    return f"{key}={short(item['input'])}: it {must}" if key else f"{short(item['input'])} {must}"


def refusing(settings: type[Settings]) -> type[Settings]:
    """A pydantic dataclass whose constructor raises UserError; as a part of another, its mistakes are that one's."""
    from pydantic import ValidationError

    fields, validated = dataclasses.fields(settings), settings.__init__  # type: ignore[arg-type, unused-ignore]
    names, by_place = [each.name for each in fields], [each.name for each in fields if not each.kw_only]

    @wraps(validated)
    def checked(self: Settings, *args: Any, **kwargs: Any) -> None:
        try:
            named = dict(zip(by_place, args, strict=False))  # so that a mistake has its name
            validated(self, *args[len(named) :], **named, **kwargs)
        except ValidationError as error:
            raise UserError(explain(error, lambda name: nearest(name, names))) from None

    settings.__init__ = checked  # type: ignore[assignment]
    return settings


def _allowed(item: "ErrorDetails") -> str:
    """What pydantic would have taken, in the words of a config file."""
    kind, limits = item["type"], item.get("ctx", {})
    if kind in BOUNDS:
        limit = next(iter(limits.values()))
        return f"{BOUNDS[kind]} {f'{limit:g}' if isinstance(limit, float) else limit}"
    if kind == "literal_error":
        return f"one of {limits['expected'].replace(' or ', ', ')}"
    return next((words for prefix, words in KINDS.items() if kind.startswith(prefix)), "another value")


BOUNDS = {
    "greater_than": "more than", "greater_than_equal": "at least",
    "less_than": "less than", "less_than_equal": "at most",
}  # fmt: skip
"""The words of a bound, by pydantic's name of the error."""

KINDS = {
    "int_parsing_size": "a smaller number", "int": "a whole number", "float": "a number", "finite": "a finite number",
    "bool": "true or false", "string_unicode": "text in UTF-8",
    "string": "text in quotes", "tuple": "a list, such as [1, 2]", "list": "a list",
    "too_short": "a list of one value at least", "dataclass": "a table of settings", "json": "text in UTF-8",
}  # fmt: skip
"""What is allowed, by the beginning of pydantic's name of the error."""
