"""A user's mistake as a value, how foreign names and values are shown, and errors of others in words."""

import dataclasses
import difflib
import errno
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, TypeVar
from unicodedata import category

if TYPE_CHECKING:
    from pydantic import ValidationError

Settings = TypeVar("Settings")

OF_THE_DISK = errno.EIO, errno.ESTALE, errno.ETIMEDOUT
"""What a disk or a server answers that fails."""
OF_THE_MACHINE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space of your quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n 4096)",
    **dict.fromkeys((errno.ENFILE, errno.ENOMEM), "close other programs"),
    **dict.fromkeys(OF_THE_DISK, "check the disk or its connection"),
}
"""What to do about an error of the system, by its number, where the name that was given is not at fault."""

REMEDIES = {
    **OF_THE_MACHINE,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name another, or ask for the right to it (chmod)"),
    **dict.fromkeys((errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG), "name another"),
}
"""What to do about a file or folder that could not be used, by the system's number of the error."""


def remedy(error: OSError) -> str:
    """The system's reason for an error, and what to do about it."""
    return f"{error.strerror or 'it failed'}; {REMEDIES.get(error.errno or 0, 'check the path and the disk')}"


Remedy = str | Mapping[str, object]
"""What to do, in words, or settings to give by their names; a setting to leave out is None."""
Spelling = Callable[[Mapping[str, object]], str]
"""How settings are written: as `arguments`, or as options of a command."""


class UserError(ValueError):
    """A mistake the user can mend, as values. The command line prints it as one line and exits with status 2.

    ``key`` names the argument or setting at fault as the library calls it, "" where it is none. ``given`` is its value
    or, without a key, what is wrong, such as a file; None where nothing was given. ``allowed`` goes on after these as a
    sentence does: "must be at least 1", "is damaged". ``remedy`` is what to do, or several things, each enough.
    ``UserError(text)`` is a sentence about no argument. ``where`` is the file or the settings that hold the mistake.
    """

    def __init__(
        self, key: str, given: object = None, allowed: str = "", remedy: Remedy | tuple[Remedy, ...] = ()
    ) -> None:
        self.key, self.given, self.allowed = (key, given, allowed) if allowed else ("", given, key)
        self.remedy, self.where = remedy, ""
        super().__init__(self.key, self.given, self.allowed, self.remedy)

    def at(self, where: object) -> Self:
        """This error with the place of the mistake, put before one that it has."""
        self.where = f"{where}: {self.where}" if self.where else str(where)
        return self

    def within(self, section: str) -> "UserError":
        """The error of a section as that of a whole: ``key`` and the settings of the remedy named in full."""
        remedies = self.remedy if isinstance(self.remedy, tuple) else (self.remedy,)
        prefix = f"{section}." if section else ""
        full = tuple(
            each if isinstance(each, str) else {f"{prefix}{name}": value for name, value in each.items()}
            for each in remedies
        )
        key = f"{prefix}{self.key}".removesuffix(".")
        return UserError(key, self.given, self.allowed, full if isinstance(self.remedy, tuple) else full[0])

    def line(self, spelled: "Spelling | None" = None) -> str:
        """The error as one printable line, settings of the user's own call ``spelled`` as the user gives them."""
        spelled = arguments if spelled is None or self.where else spelled
        subject = spelled({self.key: self.given}) if self.key else "" if self.given is None else str(self.given)
        remedies = self.remedy if isinstance(self.remedy, tuple) else (self.remedy,)
        mend = ", or ".join(_remedy(each, spelled) for each in remedies if each)
        text = f"{subject} {self.allowed}".strip() + (f"; {mend}" if mend else "")
        return printable(f"{self.where}: {text}" if self.where else text)

    def __str__(self) -> str:
        return self.line()


def _remedy(remedy: Remedy, spelled: Spelling) -> str:
    if isinstance(remedy, str):
        return remedy
    leave = all(value is None for value in remedy.values())
    return f"{'leave out' if leave else 'use'} {spelled(remedy)}"


def arguments(settings: Mapping[str, object]) -> str:
    """Settings as a call or a file gives them: ``num=0``, or the name alone where the value is None."""
    return " with ".join(name if value is None else f"{name}={short(value)}" for name, value in settings.items())


class KeptSettingsError(UserError):
    """A run that goes on was asked for other settings than it can take: ``keys``, such as train.length."""

    def __init__(self, keys: tuple[str, ...], given: object, allowed: str, remedy: Remedy | tuple[Remedy, ...]) -> None:
        super().__init__(keys[0], given, allowed, remedy)
        self.keys, self.args = keys, (keys, given, allowed, remedy)


class MissingLibraryError(UserError):
    """A library of an extra is not installed."""


def missing(name: str, extra: str, what: str) -> UserError:
    """The error for a library ``name`` of an ``extra`` that is not installed, and that ``what`` needs."""
    # the package is installed from source
    how = f"in the folder of unstir's source type pip install '.[{extra}]'"
    return MissingLibraryError("", what, f"needs {name}, which is not installed", how)


class OutOfMemoryError(MemoryError):
    """The memory is used up: ``lower`` names the settings to lower, ``what`` says what did not fit."""

    def __init__(self, lower: tuple[str, ...], what: str = "out of memory") -> None:
        self.lower, self.what = lower, what
        super().__init__(lower, what)

    def line(self, spelled: Spelling = arguments) -> str:
        """The error as one line, the settings as they are ``spelled``."""
        names = " or ".join(spelled({name: None}) for name in self.lower)
        return f"{self.what}; lower {names}, or end other programs"

    def __str__(self) -> str:
        return self.line()


class NotFiniteError(ArithmeticError):
    """The network's output holds NaN or an infinity, of which no image is made."""


class UnwrittenError(OSError):
    """What was to be written at ``filename`` is not there: the disk is full, or a right is missing."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}"


_NO_MEMORY = re.compile(
    r"out of memory|failed to map segment|can't allocate memory|bad_alloc|_ALLOC(ATION)?_FAILED|"
    "could not create a primitive(?! descriptor)"
)
"""What torch, the system, NVIDIA's libraries and oneDNN say; this fails at a *descriptor* for other reasons."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's or torch's says that the memory is used up."""
    of_others = isinstance(error, RuntimeError | ImportError) and bool(_NO_MEMORY.search(str(error)))
    return isinstance(error, MemoryError) or of_others


@contextmanager
def within_memory(*lower: str) -> Iterator[None]:
    """Where memory runs out in this block, raise OutOfMemoryError with what to ``lower``, such as batch_size."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(lower, f"out of memory{asked_for(error)}") from None


def asked_for(error: BaseException) -> str:
    """What could not be had, as ", at 2.50 GiB more"; "" where the error does not say."""
    asked = re.search(r"[Tt]ried to allocate ([0-9.]+) (\w+)", str(error))
    if asked is None:
        return ""
    number, unit = asked.groups()
    if unit == "bytes":
        number, unit = f"{float(number) / 1e9:,.3f}", "GB"
    return f", at {number} {unit} more"


def quoted(word: object) -> str:
    """A word of a command as a shell takes it: a path with spaces in quotes."""
    return shlex.quote(str(word))


def printable(name: object) -> str:
    r"""The text of a foreign name in one line that a terminal can show: control characters as \x1b, \n, \u202e.

    It may hold terminal commands, marks that turn the direction of writing, and bytes that are not UTF-8 (Python's
    surrogates), which are shown as \xe9. Letters and spaces of every language, and what joins them, stay as they are.
    """
    text = str(name)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or category(character) == "Zs" or character in "\u200c\u200d":
        return character
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode("ascii")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word whose letters are most like those of this one, capital or not; None where none is like it."""
    plain = {each.lower(): each for each in reversed([*known])}  # of those that differ by capitals the first
    return next((plain[near] for near in difflib.get_close_matches(word.lower(), plain, n=1)), None)


def short(value: object) -> str:
    """A value in at most 40 characters."""
    if isinstance(value, os.PathLike | bool):
        return str(value) if isinstance(value, os.PathLike) else json.dumps(value)
    text = "a table" if isinstance(value, dict) else ascii(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, list | tuple) and len(text) > 40:
        return f"a list of {len(value)}"
    return text if len(text) <= 40 else f"{text[:37]}..."


def of_pydantic(error: "ValidationError", near_key: Callable[[str], str | None]) -> UserError:
    """The first mistake of pydantic's as an error of ours; the remedy of an unknown key is the near one."""
    items = error.errors()
    item = next(
        each  # values that are refused were not counted
        for each in items
        if each["type"] != "too_short" or not any(other["loc"][:-1] == each["loc"] for other in items)
    )
    key, given = ".".join(part for part in item["loc"] if isinstance(part, str)), item["input"]
    if item["type"] == "unexpected_keyword_argument":
        near = near_key(key)
        return UserError(key, None, "is unknown", f"did you mean {near}?" if near else ())
    if item["type"] == "unexpected_positional_argument":
        return UserError("", short(given), "is given without its name", "write name=value")
    if item["type"] == "dict_type":
        return UserError(key, given, "must be a table", f"give each of its values a name: {key}.NAME")
    if item["type"] != "value_error":
        return UserError(key, given, re.sub(r"^\w+ should", "must", item["msg"].partition(", unable")[0]))
    cause = item["ctx"]["error"]
    return cause.within(key) if isinstance(cause, UserError) else UserError(key, given, str(cause))


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
            raise of_pydantic(error, lambda name: nearest(name, names)) from None

    settings.__init__ = checked  # type: ignore[assignment]
    return settings
