"""A config as TOML, nested dicts or dotted keys, and back; a wrong one is explained in one line."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from unstir.errors import UserError
from unstir.runs.config import Config
from unstir.runs.synonyms import SETTINGS, by_word

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def from_dict(values: Mapping[str, Any], source: str) -> Config:
    """The config that nested ``values`` describe; defaults fill what they leave out.

    Raises UserError naming ``source``, the key, what was given and what is allowed, and the near key of a misspelt one.
    """
    for key, value in _flat(values):
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{source}: {key} holds a NUL character, which no name has; leave it out")
        if isinstance(value, int) and abs(value) >= 10**18:
            raise UserError(f"{source}: {key}={_shown(value)} is too large; a whole number here has at most 18 digits")
    try:  # by way of JSON, whose strict mode takes a list for a tuple but no text for a number
        return TypeAdapter(Config).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """A validation error as one line: each key, what is wrong with it, what was given, and the near key."""
    return "; ".join(map(_explain, error.errors()))


KINDS = {
    "int": "must be a whole number written in digits, such as 3",
    "float": "must be a number, such as 0.5",
    "finite": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text in quotes",
    "tuple": "must be a list, such as [1, 2]",
    "dataclass": "must be a table of settings, written [{key}] in a TOML file",
}
"""What a key takes, by the first word of pydantic's name of the error."""
BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
BOUND_WORDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
"""How a bound is said, by the name under which pydantic keeps it."""


def _explain(item: "ErrorDetails") -> str:
    key, kind, context = ".".join(map(str, item["loc"])), item["type"], item.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        near = near_key(key)
        return f"unknown key {key}" + (f"; did you mean {near}?" if near else "")
    if kind == "value_error":
        return (f"{key}: " if key else "") + item["msg"].removeprefix("Value error, ")
    given = f"{key}={_shown(item['input'])}"
    if kind == "int_parsing_size":
        return f"{given} is too large; a whole number here has at most 18 digits"
    if kind in BOUNDS:
        return f"{given} must be {BOUND_WORDS[BOUNDS[kind]]} {context[BOUNDS[kind]]:g}"
    if kind == "literal_error":
        return f"{given} must be one of {context['expected'].replace(' or ', ', ')}".replace("'", '"')
    if kind == "too_short":
        return f"{given} must have at least {context['min_length']} entries"
    if words := KINDS.get(kind.split("_")[0]):
        return f"{given} {words.format(key=key)}"
    return f"{given}: {item['msg'][0].lower()}{item['msg'][1:]}"


def _shown(value: object) -> str:
    """A value as TOML has it, cut where it is long."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except ValueError:  # a number of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _keys() -> list[str]:
    """Every dotted key there is, those that are None by default among them."""
    default = Config()
    return [
        f"{section.name}.{key.name}" if dataclasses.is_dataclass(value) else section.name
        for section in dataclasses.fields(Config)  # type: ignore[arg-type, unused-ignore]
        for value in [getattr(default, section.name)]
        for key in (dataclasses.fields(value) if dataclasses.is_dataclass(value) else [section])
    ]


def near_key(key: str) -> str | None:
    """The key or section that a wrong one was probably meant to be."""
    known = _keys()
    section, _, name = key.rpartition(".")
    if synonym := by_word(SETTINGS, name, known, section):
        return synonym
    if not section and (elsewhere := [found for found in known if found.endswith(f".{name}")]):
        return elsewhere[0]
    candidates = known if section else sorted({name.split(".")[0] for name in known})
    return next(iter(difflib.get_close_matches(key, candidates, n=1)), None)


def load(path: Path) -> Config:
    """The config in a TOML file; raises UserError for a missing, unreadable or wrong one."""
    return from_dict(read(path), str(path))


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises UserError naming the file where it is missing or broken."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        elif "Exceeds the limit" in str(error):
            reason = "it holds a number of thousands of digits"
        else:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UserError(f"cannot read {path}: {reason}") from None


def to_toml(config: Config) -> str:
    """The whole config as TOML text, every key written out."""
    return tomli_w.dumps(to_dict(config))


def to_dict(config: Config) -> dict[str, Any]:
    """The whole config as nested dicts of TOML's own types."""
    return _plain(dataclasses.asdict(config))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples as lists, and without the keys that are None, for which TOML has no word."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            plain[key] = _plain(value)
        elif value is not None:
            plain[key] = list(value) if isinstance(value, tuple) else value
    return plain


def flat(config: Config) -> dict[str, Any]:
    """The config as dotted keys: {"train.lr": 0.0002, ...}."""
    return dict(_flat(to_dict(config)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested dicts."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
