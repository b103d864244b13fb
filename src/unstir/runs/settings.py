"""The settings of a run: those that its newest weights were saved with, and what may change as config.toml has it.

Until weights are saved, config.toml has all of them; from then on an edit of what a run keeps has no effect.
"""

import hashlib
import json
import logging
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from unstir.runs import toml
from unstir.runs.config import MAY_CHANGE, Config

logger = logging.getLogger(__name__)


def of_run(folder: Path) -> Config:
    """The config of the run in a folder; UserError where config.toml or a setting in it is missing or wrong."""
    file = folder / "config.toml"
    tables, saved = toml.read(file), _saved(folder)
    if saved is None:
        return toml.from_dict(tables, str(file))
    kept, edited = toml.flat(saved), list[str]()
    for key, value in toml.flat(tables).items():
        if key in MAY_CHANGE:
            section, name = key.split(".")
            saved[section][name] = value
        elif kept.get(key) != value:
            edited.append(key)
    if edited:
        _warn(f"{file}: {', '.join(edited)} have no effect, for a run keeps the settings that it was trained with")
    return toml.from_dict(saved, str(file))


def identity(config: Config) -> str:
    """SHA-256 (hex) of what a run keeps of its settings: weights of the same data and settings are of one run."""
    kept = {key: value for key, value in toml.flat(config).items() if key not in (*MAY_CHANGE, "recipe")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _saved(folder: Path) -> dict[str, Any] | None:
    """The config in the newest file of weights, as nested dicts; None where there is none that can be read."""
    files = [path for part in ("checkpoints", "weights") for path in (folder / part).glob("step-*.safetensors")]
    for path in sorted(files, key=lambda path: path.name, reverse=True):
        with suppress(OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError):
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
            text = metadata["unstir"]
            if hashlib.sha256(text.encode()).hexdigest() == metadata["text_sha256"]:
                return dict(json.loads(text)["config"])
    return None


@cache
def _warn(text: str) -> None:
    """Log a warning once in a process, however often the run is opened."""
    logger.warning(text)
