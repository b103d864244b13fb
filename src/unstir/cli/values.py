"""What was typed for an option, checked before anything is made of it: one place for all commands and settings."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Token
from cyclopts.argument import Argument, ArgumentCollection

from unstir.errors import UserError
from unstir.parts import OURS, WORDS, is_own, kind_of, read, short_name
from unstir.progress import is_numeral
from unstir.runs.synonyms import GOES_ON, near_setting

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")  # a whole number that fits into 64 bits
LONG = 200  # characters of a value that a message shows
NEGATIVE = re.compile(r"-[0-9]")  # how a value begins that is less than 0; no option does
OFF = re.compile(r"(--[\w.-]*options[\w.]*)\.no-(\w+)")  # an option of a part that is turned off
PICTURES = ".png", ".jpg", ".jpeg", ".webp", ".gif"


def spelled(typed: Sequence[str], arguments: Sequence[Argument]) -> list[str]:
    """The words that were typed, as the parser takes them: of the list 1,2,2 each value as a word of its own.

    What begins as a negative number and is none, such as "-3 steps", is a value of the option before it, joined by "=".
    Names may hold commas: lists of them are left as they are, and so is a path that follows a list. The options of a
    part have no kinds yet, so that --options.no-NAME is --options.NAME=false.
    """
    lists = {name for each in arguments if _is_list(each.hint) for name in each.names}
    words, option = list[str](), ""
    for word in (OFF.sub(r"\1.\2=false", word) for word in typed):
        name, _, value = word.partition("=") if word.startswith("--") else (option, "", word)
        option, first = name, value != word or words[-1:] == [name]
        numbers = all(not text or is_numeral(text) for text in value.split(","))
        if option in lists and "," in value and (first or numbers):
            words += [*([option] if value != word else []), *value.replace(",", " ").split()]
        elif words and words[-1] == option and NEGATIVE.match(word) and not is_numeral(word):
            words[-1] = f"{option}={word}"
        else:
            words.append(word)
    return words


def _is_list(hint: Any) -> bool:
    """Whether a hint takes several numbers, or several words of those known."""
    many, kinds = any(get_origin(each) in (tuple, list) for each in (hint, *get_args(hint))), _kinds(hint)
    known = get_origin(kinds[0]) is Literal or kind_of(hint) if kinds else False
    return many and len(kinds) == 1 and (kinds[0] in (int, float) or bool(known))


def check(arguments: ArgumentCollection) -> None:
    """Raise UserError for a value of the command line that is not of its option's kind."""
    for argument in arguments:
        if argument.tokens and argument.children:
            given = f"{option_of(argument, argument.tokens[0])} {shortened(argument.tokens[0].value)}".strip()
            near = meant(argument.name, [name for each in arguments if not each.children for name in each.names])
            raise UserError("", given, "names a section", f"did you mean {near or argument.children[0].name}?")
        kinds = _kinds(argument.hint)
        plain = tuple(kind for kind in kinds if get_origin(kind) is not Literal)
        words = {str(word) for kind in {*kinds} - {*plain} for word in get_args(kind)} if plain else set()
        kinds = plain or kinds  # and the words taken besides: int and "best" for int | Literal["best"]
        for token in argument.tokens:
            if (
                len(kinds) == 1
                and token.value not in words
                and (token.value or (kinds in ((Path,), (int,), (float,)) and not _is_list(argument.hint)))
            ):
                _check(argument, token, kinds[0])


def keep_others(arguments: ArgumentCollection, option: str, base: Mapping[str, Any]) -> None:
    """Beside those that were typed of an ``option``'s table, or tables, have the others of the ``base``."""
    there = {(key, *keys): value for key, table in base.items() for keys, value in _rows(table)}
    for argument in arguments:
        if argument.name == option and argument.tokens:
            typed = {_short(token.keys) for token in argument.tokens}
            others = {keys: value for keys, value in there.items() if _short(keys) not in typed}
            argument.tokens += [Token(value=str(value), keys=keys) for keys, value in others.items()]


def _short(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of an option, its part by the short name."""
    return (*map(short_name, keys),)


def _rows(table: Any) -> list[tuple[tuple[str, ...], Any]]:
    return [((key,), value) for key, value in table.items()] if isinstance(table, Mapping) else [((), table)]


def read_options(
    arguments: ArgumentCollection, option: str, part: tuple[str, str], base: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Read words typed for an ``option`` as options of a ``part``, or below its name; others are the ``base``'s."""
    for argument in arguments:
        for number, token in enumerate(argument.tokens if argument.name == option else ()):
            if token.keys and token.keys[:-1] in ((), (short_name(part[1]),), (part[1],)):
                key = token.keys[-1]
                value = read(*part, key, token.value) if token.source == "cli" else base[key]
                argument.tokens[number] = token.evolve(implicit_value=value)


def is_folder(_: object, out: Path | None) -> None:
    """Raise UserError where the name of a folder to make is that of a picture."""
    if out is not None and out.suffix.lower() in PICTURES:
        raise UserError("out", out, "is the name of a picture, and a folder is made", {"out": out.with_suffix("")})


def part_of(argument: Argument) -> str:
    """The kind of part that an option names, such as "sampler"; "" where it names none."""
    return kind_of(argument.field_info.annotation)


def shortened(text: str) -> str:
    """A value for a message: of a very long one the beginning and its length."""
    return text if len(text) <= LONG else f"{text[:LONG]}... ({len(text)} characters)"


def option_of(argument: Argument, token: Token | None = None) -> str:
    """What an argument is called in messages: the option as typed, or RUN for one without a name."""
    keyword = token.keyword if token else None
    return keyword or (argument.name.lstrip("-").upper() if argument.index is not None else argument.name)


def meant(given: str, options: Iterable[str]) -> str | None:
    """The option of a command, of its ``options``, that ``given`` was probably to be; None where nothing is near."""
    known = {name.removeprefix("--").replace("-", "_"): name for name in options if name.startswith("--")}
    known[GOES_ON] = "unstir train --out RUN, which goes on" if "train.length" in known else GOES_ON
    word = given.lstrip("-").replace("-", "_")
    if off := known.get(re.sub(r"^no_(.*)\.", r"\1.no_", word)):
        return off
    near = near_setting(word, known)
    return known[near] if near else None


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The kinds of value that a hint takes: int for int | None, tuple[int, int] and list[Annotated[int, ...]]."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kinds(inner[0])
    if origin is Literal:
        return (hint,)
    if inner:
        return tuple(dict.fromkeys(kind for each in inner for kind in _kinds(each)))
    return () if hint in (NoneType, ...) else (hint,)


def _check(argument: Argument, token: Token, kind: Any) -> None:
    text = token.value
    given = " ".join([option_of(argument, token), shortened(text) or '""'])
    if kind in (str, Path) and text[:2] in ("~", "~/"):
        kept = "has a ~ that the shell leaves as it is in quotes and after ="
        raise UserError("", given, kept, "leave out the quotes or the =")
    if kind is int and not WHOLE.fullmatch(text):
        if text.lstrip("+-").isdecimal():
            raise UserError("", given, "is too large", "a whole number here has at most 18 digits")
        raise UserError("", given, "must be a whole number written in digits, such as 1000")
    if kind is float and not is_numeral(text):
        raise UserError("", given, "must be a number, such as 0.5 or 2e-4")
    part = part_of(argument)
    allowed = [*map(str, get_args(kind))] if get_origin(kind) is Literal else [text]
    if part:
        allowed = [*WORDS.get(part, ()), *OURS[part]]
    if text not in allowed and not (part and is_own(text)):
        near, other = near_setting(text, allowed), ", or MODULE:NAME" if part else ""
        one_of = f"must be one of {', '.join(allowed)}{other}"
        raise UserError("", given, one_of, f"did you mean {near}?" if near else ())
    if kind is Path and not text.strip():
        raise UserError("", f"{option_of(argument, token)} {text!r}", "is no name of a file or folder")
