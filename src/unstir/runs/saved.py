"""The settings of a run: those of its newest weights, and of config.toml what may change when it is continued."""

import hashlib
import json
import logging
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from unstir.runs import checkpoint, toml
from unstir.runs.config import MAY_CHANGE, Config

logger = logging.getLogger(__name__)


def settings_of(folder: Path, run: str) -> Config:
    """The config of the ``run`` in a folder; UserError where config.toml or a setting in it is missing or wrong."""
    file = folder / "config.toml"
    tables, saved = toml.read(file), _saved(folder, run)
    if saved is None:
        return toml.from_dict(tables, str(file))
    kept, written = toml.flat(saved), toml.flat(tables)
    for key in written.keys() & MAY_CHANGE:
        section, name = key.split(".")
        saved[section][name] = written[key]
    if edited := [key for key in written if key not in MAY_CHANGE and kept.get(key) != written[key]]:
        warn(f"{file}: {', '.join(edited)}: edited in vain, a run keeps the settings that it was trained with")
    return toml.from_dict(saved, str(file))


def _saved(folder: Path, run: str) -> dict[str, Any] | None:
    """The config in the newest file of the ``run``'s weights, as nested dicts; None where none can be read."""
    files = [file for part in ("checkpoints", "weights") for file in checkpoint.listed(folder / part)]
    for _, path in sorted(files, reverse=True):
        with suppress(OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError):
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
            text = metadata["unstir"]
            if hashlib.sha256(text.encode()).hexdigest() == metadata["text_sha256"]:
                saved = json.loads(text)
                if saved["data"].get("run", run) == run:  # imported weights know no data
                    return dict(saved["config"])
    return None


@cache
def warn(text: str) -> None:
    """Log a warning once in a process, however often the run is opened."""
    logger.warning(text)
