"""Results in a file that a kill leaves whole, and that a later command goes on from."""

import json
from collections.abc import Mapping
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
