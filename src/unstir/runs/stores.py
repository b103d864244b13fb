"""The data of a run: where it was packed, or where a person says it is; else images to compare with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unstir.data.classes import matched, plain, some
from unstir.data.embedded import EMBEDDED
from unstir.data.packing import pack
from unstir.data.store import Store, is_store
from unstir.errors import UserError
from unstir.pixels import PIXELS
from unstir.progress import sized
from unstir.runs.card import DataCard

if TYPE_CHECKING:
    from unstir.runs.run import Run


def with_store(run: "Run", named: str | Path | None = None) -> tuple["Run", Store]:
    """The run and its data, in the folder ``named`` or where it was packed. Raises UserError where it has gone.

    For a model that comes with the package, the digits inside it are packed, as data/NAME. A run that knows no data
    takes the images ``named`` for its own (`compared_with`).
    """
    packed = run.config.data.store
    if named is None and not run.data.content_hash:
        run.config.kind.check_trained_here(run.path, " and has no data of its own", {"store": "FOLDER"})
    if run.shipped and run.config.data.source in EMBEDDED and named is None:
        packed = str(pack(run.config.data.source, Path("data") / run.config.data.source).path)
    if named is None and not is_store(packed):
        raise UserError("", packed or run.config.data.source, f"is gone, the data of {run.path}", {"store": "FOLDER"})
    store = Store.open(named or packed)
    return compared_with(run, store), store


def compared_with(run: "Run", store: Store) -> "Run":
    """A run that knows no data as if that of ``store`` were its own; UserError where images or classes do not fit."""
    card = run.data
    if card.content_hash:
        return run
    if store.shape != card.shape:
        given, due = map(sized, (store.shape, card.shape))
        raise UserError("", store.path, f"holds images of {given}, {run.path} makes {due}", "name another store")
    if card.scale not in (PIXELS, store.scale):
        raise UserError("", store.path, f"has scale {store.scale.pairs}, not {card.scale.pairs}", "name another store")
    theirs, ours = len(store.classes), run.config.model.num_classes
    if ours not in (0, theirs):
        raise UserError("", store.path, f"has {theirs} classes, {run.path} knows {ours}", "name another store")
    if ours:
        _check_names(run.path, card.classes, store)
    known = {"counts": store.counts, "content_hash": store.content_hash, "scale": store.scale}
    return replace(run, data=replace(card, **known))  # type: ignore[arg-type]


def _check_names(folder: Path, names: Sequence[str], store: Store) -> None:
    """Raise UserError where a number is one class of the run and another of the store, if both have names."""
    if len(names) != len(store.classes) or matched(names, store.classes) == tuple(range(len(names))):
        return
    first = next(n for n, pair in enumerate(zip(names, store.classes, strict=True)) if plain(pair[0]) != plain(pair[1]))
    ours, theirs = some(names, first), some(store.classes, first)
    other = f"has the classes {theirs} from number {first} on, and {folder} has {ours}"
    raise UserError("", store.path, other, "name a store of the same classes in the same order")


def check_data(folder: Path, data: DataCard, store: Store) -> None:
    """Raise UserError where ``store`` is not the ``data`` that the run in the folder was trained on."""
    if store.content_hash != data.content_hash:
        raise UserError("", store.path, f"is not the data of {folder}", "name the store that it was trained on")
