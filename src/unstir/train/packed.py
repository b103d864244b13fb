"""Where the packed data of a run is: found, or packed now."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unstir.data.disk import usable_path
from unstir.data.embedded import EMBEDDED
from unstir.data.levels import remarks
from unstir.data.packing import packed
from unstir.data.source import NAMES, Options, Plan, is_named
from unstir.data.store import Store, is_store
from unstir.errors import UserError, quoted
from unstir.progress import counted
from unstir.runs.run import Run
from unstir.runs.sections import DataConfig

logger = logging.getLogger(__name__)


def store_path(data: DataConfig) -> Path:
    """Where the packed data of these settings is kept: data.store, or data/NAME below the current folder.

    What comes with the package or is published under a name is data/NAME, such as data/mnist. A path of the user's, or
    another selection of those, has the first digits of a hash of its settings behind its name.
    """
    if data.store:
        return Path(data.store)
    path = Path(os.path.realpath(usable_path(data.source)))
    name = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
    asked = dataclasses.replace(data, condition="", condition_options={}, flip=False)
    if asked == DataConfig(source=data.source, channels=1 if data.source in EMBEDDED else 3) and data.source in NAMES:
        return Path("data") / name
    source = data.source if is_named(data.source) else path
    settings = [str(source), data.size, data.channels, data.held_out, data.sha256, *data.options.items()]
    settings += [data.depth, *data.scale] if (data.depth, data.scale) != (DataConfig.depth, ()) else []
    return Path("data") / f"{name.replace(':', '-')}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]}"


def store_of(data: DataConfig, old: Run | None, check: Callable[[Plan], None]) -> Store:
    """The store of ``data``, else that of the run ``old``, else the source if it is one, else the source packed.

    Without an old run ``check`` may refuse what is about to be packed.
    """
    places = [] if old is None else [data.store, old.config.data.store]
    for place in (*places, data.source):
        if place and is_store(place):
            if old is None and data.sha256:
                allowed = f"is the hash of one file, and {place} is a packed store"
                raise UserError("data.sha256", data.sha256, allowed, {"data.sha256": None})
            return Store.open(place)
    if old is not None and not is_named(data.source) and not usable_path(data.source).exists():
        gone = f"is gone, and so is its source {data.source}"
        raise UserError("data.store", Path(places[-1]), gone, "name the folder of that data")
    if not data.source:
        raise UserError("data.source", "", "names no images")
    path = store_path(data)
    known = is_store(path)
    store = _packed(data, path, check if old is None else lambda plan: None)
    for line in () if known else remarks(store):
        logger.warning(line)
    if store.refused and not known:
        listed = f"unstir data inspect {quoted(store.path)} lists them"
        logger.warning(f"{counted(len(store.refused), 'file')} refused: {listed}")
    return store


def _packed(data: DataConfig, path: Path, check: Callable[[Plan], None]) -> Store:
    names = "size", "channels", "held_out", "sha256", "depth", "scale", "options"
    given: dict[str, Any] = {name: value for name in names if (value := getattr(data, name)) not in ("", ())}
    try:
        return packed(Options(data.source, download_dir=path.parent, **given, check=check), path)
    except UserError as error:
        if error.key.startswith("options"):
            raise error.within("data") from None
        if error.key != "channels" or not isinstance(error.remedy, dict):
            raise
        both = {f"{section}channels": error.remedy["channels"] for section in ("data.", "model.in_")}
        raise UserError("data.channels", error.given, error.allowed, both) from None
