"""A config as TOML, nested dicts or dotted keys, and back; a wrong one is explained in one line."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from unstir.errors import UserError, remedy
from unstir.runs.config import Config
from unstir.runs.kinds import short
from unstir.runs.synonyms import near_setting

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def from_dict(values: Mapping[str, Any], source: str) -> Config:
    """The config that nested ``values`` describe; defaults fill what they leave out.

    Raises UserError naming ``source``, the key, what was given and what is allowed, and the near key of a misspelt one.
    """
    try:  # by way of JSON, whose strict mode takes a list for a tuple but no text for a number
        text = json.dumps(values, default=str)
        if re.search(r"(?<!\\)(\\\\)*\\u0000", text):
            raise UserError(f"{source}: a text has a zero byte in it, which no name can have; leave it out")
        return TypeAdapter(Config).validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error)}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{source}: its tables are nested too deeply, or a number is too long; mend it") from None


def explain(error: ValidationError) -> str:
    """A validation error as one line: each key, what was given, what is allowed, and the near key of a misspelt one."""
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "unexpected_keyword_argument":
            near = near_key(key)
            parts.append(f"unknown key {key}" + (f"; did you mean {near}?" if near else ""))
        elif item["type"] == "value_error":
            parts.append((f"{key}: " if key else "") + item["msg"].removeprefix("Value error, "))
        else:
            given = short(item["input"])
            parts.append(f"{key}={given}: it must be {_allowed(item)}" if key else f"{given} must be {_allowed(item)}")
    return "; ".join(parts)


def _allowed(item: "ErrorDetails") -> str:
    """What pydantic would have taken, in the words of a config file."""
    kind, limits = item["type"], item.get("ctx", {})
    if kind in BOUNDS:
        return f"{BOUNDS[kind]} {next(iter(limits.values()))}"
    if kind == "literal_error":
        return f"one of {limits['expected'].replace(' or ', ', ')}"
    return next((words for prefix, words in KINDS.items() if kind.startswith(prefix)), "another value")


BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
"""The words of a bound, by pydantic's name of the error."""

KINDS = {
    "int_parsing_size": "a smaller number", "int": "a whole number", "float": "a number", "finite": "a finite number",
    "bool": "true or false", "string_unicode": "text in UTF-8",
    "string": "text in quotes", "tuple": "a list, such as [1, 2]", "list": "a list",
    "too_short": "a longer list", "dataclass": "a table of settings", "json": "text in UTF-8",
}  # fmt: skip
"""What is allowed, by the beginning of pydantic's name of the error."""


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
    return near_setting(key, {*known, *(name.split(".")[0] for name in known)})


def load(path: Path) -> Config:
    """The config in a TOML file; raises UserError for a missing, unreadable or wrong one."""
    return from_dict(read(path), str(path))


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises UserError naming the file where it is missing or broken."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UserError(f"cannot read {path}: {remedy(error)}") from None
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"line \d+, column \d+|end of document", str(error))
        at = f" at {where[0].replace('document', 'file')}" if where else ""
        raise UserError(f"cannot read {path}: it is not TOML{at}; mend it there, or restore it from a copy") from None
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: byte {error.start} is no UTF-8 text; save it as UTF-8") from None
    except (ValueError, RecursionError):
        raise UserError(f"cannot read {path}: it is nested too deeply, or a number is too long; mend it") from None


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
    tables = to_dict(config)
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    return plain | {
        f"{name}.{key}": value for name in tables if name not in plain for key, value in tables[name].items()
    }
