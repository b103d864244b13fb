"""The packed data that a run is trained on: where it is kept, packed or found again, and whether it is the run's."""

import hashlib
import json
from pathlib import Path

from unstir.data import Store, is_store, pack
from unstir.data.disk import usable_path
from unstir.data.embedded import EMBEDDED
from unstir.data.source import NAMES, after_train, is_named
from unstir.errors import UserError
from unstir.runs import build
from unstir.runs.config import Config
from unstir.runs.folder import check_free, is_run
from unstir.runs.initial import check_initial
from unstir.runs.run import Run
from unstir.runs.sections import DataConfig
from unstir.train.fits import check_weights


def open_data(config: Config, out: Path, data_of: Run | None = None) -> Store:
    """The packed store that a run in folder ``out`` is trained on, packed now where it is not there yet.

    A run that exists keeps to its store, checked by its content hash, and so does a new one to that of the run
    ``data_of``; the source is then needed only where the store has gone. Raises UserError for every mistake in the
    data, for a folder that cannot be the run's, for a device or initial weights that are not there, for
    weights beyond the memory of a CPU, and where the data is not what that run began with.
    """
    check_weights(config, build.device(config.train.device))
    if size := config.data.size:
        check_sides(config, size, size)
    old = Run.open(out) if is_run(out) else data_of
    if is_run(out) and old is not None:
        why = f" ({old.config.kind.origin}) and has no training to continue"
        old.config.kind.check_trained_here(out, why, f"to go on from its weights: {old.going_on}")
    if not is_run(out):
        check_free(out)
        check_initial(config)
    if old is not None:
        if config.data.store not in ("", old.config.data.store) and not is_store(config.data.store):
            raise UserError("data.store", config.data.store, "is no packed store", "leave it out, or name one")
        store = _store_of(config.data, old)
        if store.content_hash != old.data.content_hash:
            other = f"is not the data that {old.path} began with"
            raise UserError("data.store", store.path, other, "name the folder of that data, or start another run")
    else:
        store = _store_of(config.data, None)
    store.verify()
    return store


def store_path(data: DataConfig) -> Path:
    """Where the packed data of these settings is kept: data.store, or data/NAME below the current folder.

    What comes with the package or is published under a name is data/NAME, such as data/mnist. A path of the user's, or
    another selection of those, has the first digits of a hash of its settings behind its name.
    """
    if data.store:
        return Path(data.store)
    name = usable_path(data.source).resolve().name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
    usual = DataConfig(source=data.source, channels=1 if data.source in EMBEDDED else 3, flip=data.flip)
    if data == usual and data.source in NAMES:
        return Path("data") / name
    source = data.source if is_named(data.source) else str(Path(data.source).resolve())
    settings = [source, data.size, data.channels, data.held_out, data.sha256]
    return Path("data") / f"{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]}"


def _store_of(data: DataConfig, old: Run | None) -> Store:
    """The store of ``data``, else that of the run ``old``, else the source if it is one, else the source packed."""
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
    return pack(
        data.source,
        store_path(data),
        size=data.size or None,
        channels=data.channels,
        held_out=data.held_out,
        sha256=data.sha256 or None,
        spelling=after_train,
    )


def check_sides(config: Config, height: int, width: int) -> None:
    """Raise UserError where the network cannot halve images of these sides at each level."""
    build.check_own(config, height, width)
    multiple = config.model.multiple
    if height % multiple or width % multiple:
        model, least = config.model, min(height, width)
        side = max((2 * least + multiple) // (2 * multiple), 1) * multiple  # the nearest; as near, the larger
        levels = [level for level in range(len(model.mults)) if not (height % (1 << level) or width % (1 << level))]
        attention = [level for level in model.attention if level in levels] or levels[-1:]
        packed = is_store(config.data.source)  # packed images keep their size
        again = f"pack the images again by unstir data pack --size {side}" if packed else {"data.size": side}
        fewer = {"model.mults": model.mults[: len(levels)], "model.attention": attention}
        sides = f"need sides of images that are multiples of {multiple}"
        raise UserError("model.mults", model.mults, f"{sides}, not {height}x{width}", (again, fewer))
