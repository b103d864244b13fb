"""What a command is given, and its results in a file that a kill leaves whole and a later command goes on from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any


def write(path: Path, known: object) -> None:
    """Replaces the file in one move, so that a kill leaves the old one or the new one."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1) + "\n")
    part.replace(path)


def earlier(path: Path, about: Mapping[str, Any], empty: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds of the settings ``about``, or those with what is ``empty``; SystemExit for other settings."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {**about, **empty}
    if unlike := [name for name, value in about.items() if known.get(name) != value]:
        raise SystemExit(f"{path} was made with other {', '.join(unlike)}: give another --out, or delete it")
    return known


def changed(config: Any, settings: Mapping[str, object]) -> Any:
    """The config with dotted settings changed."""
    sections: dict[str, dict[str, object]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    return replace(config, **{name: replace(getattr(config, name), **values) for name, values in sections.items()})


def given(settings: Iterable[str]) -> dict[str, object]:
    """Settings written as section.name=value, a number, true or false, or else a text, by their dotted keys."""
    values: dict[str, object] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise SystemExit(f"{text!r} is no setting such as train.lr=2e-3")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values
