"""A config as TOML, nested dicts or dotted keys, and back; a wrong one is explained in one line."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from unstir.data.disk import read_bytes
from unstir.errors import KeptSettingsError, UserError, of_pydantic, short
from unstir.runs.config import Config, may_change
from unstir.runs.synonyms import near_setting


def from_dict(values: Mapping[str, Any], source: str) -> Config:
    """The config that nested ``values`` describe, defaults where they are silent; UserError naming the ``source``."""
    try:  # by way of JSON, whose strict mode takes a list for a tuple but no text for a number
        return TypeAdapter(Config).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise of_pydantic(error, near_key).at(source) from None


def near_key(key: str) -> str | None:
    """The key or section that a wrong one was probably meant to be."""
    sections = dataclasses.asdict(Config())
    keys = (f"{section}.{name}" for section, table in sections.items() if isinstance(table, dict) for name in table)
    return near_setting(key, {*sections, *keys})


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises OSError where it cannot be read, UserError where it is broken."""
    try:
        return tomllib.loads(read_bytes(path).decode())
    except tomllib.TOMLDecodeError as error:
        raise UserError("", path, f"is not TOML: {error}", "mend it there, or restore it from a copy") from None
    except UnicodeDecodeError as error:
        raise UserError("", path, f"has no UTF-8 text at byte {error.start}", "save it as UTF-8") from None
    except (ValueError, RecursionError):
        raise UserError("", path, "is nested too deeply, or has too long a number", "mend it") from None


def is_run(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / "config.toml").is_file()


def to_toml(config: Config | Mapping[str, Any]) -> str:
    """The whole config, every key written out, or nested tables, as TOML text."""
    return "\n".join(_table(to_dict(config) if isinstance(config, Config) else config)).strip() + "\n"


def _table(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The lines of a table of this dotted name, and of the tables within."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    yield from (f"{_key(key)} = {_value(value)}" for key, value in values.items() if key not in tables)
    for key, table in tables.items():
        yield from ("", f"[{before}{_key(key)}]", *_table(table, f"{before}{_key(key)}."))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    """A value as TOML has it: numbers, words and lists as JSON, which leaves the character DEL as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dicts of TOML's own types, without the settings of other networks."""
    values = dataclasses.asdict(config)
    for key in config.model.unused:
        del values["model"][key]
    return _plain(values)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples as lists, and without empty tables and the keys that are None, for which TOML has no word."""
    return {
        key: _plain(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value is not None and value != {}
    }


def flat(config: Config | Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A config, or nested tables, as dotted keys behind ``before``: {"train.lr": 0.0002, ...}."""
    values = dict[str, Any]()
    for name, value in (to_dict(config) if isinstance(config, Config) else config).items():
        key = f"{before}{name}"
        values |= flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return values


def changes(saved: Config, asked: Config) -> dict[str, Any]:
    """What ``asked`` would change in a run, by dotted keys; KeptSettingsError for those that must not change."""
    old, new = flat(saved), flat(asked)
    changed = {key: new.get(key) for key in {**old, **new} if old.get(key) != new.get(key) and key != "recipe"}
    if fixed := [key for key in changed if not may_change(key)]:
        kept = f"is {short(old.get(fixed[0]))} in the run, which keeps its settings"
        remedy = dict.fromkeys(fixed), "start another run in another folder"
        raise KeptSettingsError(tuple(fixed), new.get(fixed[0]), kept, remedy)
    return changed
