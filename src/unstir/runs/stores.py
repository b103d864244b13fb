"""The data of a run: where it was packed, or where a person says it is; else images to compare with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unstir.data.classes import matched, plain, some
from unstir.data.embedded import EMBEDDED, held_out
from unstir.data.packing import pack
from unstir.data.store import Store, is_store
from unstir.errors import UserError
from unstir.pixels import PIXELS, from_uint8, known
from unstir.progress import counted, sized
from unstir.runs.card import DataCard

if TYPE_CHECKING:
    from unstir.runs.run import Run


def with_store(run: "Run", named: str | Path | None = None) -> tuple["Run", Store]:
    """The run and its data, in the folder ``named`` or where it was packed. Raises UserError where it has gone.

    For a model that comes with the package, the digits inside it are packed, as data/NAME. A run that knows no data is
    compared with the images ``named``; the run returned is as if they were its own.
    """
    packed = run.config.data.store
    if named is None and not run.data.content_hash:
        run.config.kind.check_trained_here(run.path, " and has no data of its own", {"store": "FOLDER"})
    if run.shipped and run.config.data.source in EMBEDDED and named is None:
        packed = str(pack(run.config.data.source, Path("data") / run.config.data.source).path)
    if named is None and not is_store(packed):
        raise UserError("", packed, f"is gone, the data of {run.path}", {"store": "FOLDER"})
    store = Store.open(named or packed)
    return compared_with(run, store), store


class Examples(NamedTuple):
    """Images ``x_0``, float32 [n, C, H, W] about [-1, 1], with 0 for what is missing.

    ``told`` is what the network is told of each, as `Model.condition` has it. ``present``, bool like x_0, says which
    values are known; None: all.
    """

    x_0: Tensor
    told: Tensor | None = None
    present: Tensor | None = None

    def to(self, device: torch.device) -> "Examples":
        """The same on a device."""
        return Examples(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def examples(run: "Run", num: int) -> Examples | None:
    """Up to ``num`` held-out images of a run's data, one of each class first; None where the data are not at hand.

    Of data of which nothing was held out they are training images.
    """
    store, told = run.config.data.store, None
    if run.shipped and run.config.data.source in EMBEDDED:
        pixels, labels = map(torch.from_numpy, held_out(run.config.data.source))
        index = _one_of_each(labels, len(pixels))[:num]
        return Examples(from_uint8(pixels[index]), labels[index] if run.config.model.num_classes else None)
    if not is_store(store):
        return None
    opened = Store.open(store)
    split = "held_out" if opened.count("held_out") else "train"
    classes = opened.labels(split)
    index = _one_of_each(classes, opened.count(split))[:num]
    x_0, present = known(opened.scale.to_model(opened.images(split)[index]), opened.scale)
    if run.conditions is not None:
        told = run.conditions.of_store(opened, split, index, x_0)
    elif classes is not None and run.config.model.num_classes:
        told = classes[index]
    return Examples(x_0, told, present)


def _one_of_each(labels: Tensor | None, count: int) -> Tensor:
    """The places 0..count-1, int64, the first of each class before all others."""
    if labels is None:
        return torch.arange(count)
    first = dict(reversed([(label, place) for place, label in enumerate(labels.tolist())]))
    return torch.tensor(list(dict.fromkeys([first[label] for label in sorted(first)] + list(range(count)))))


def compared_with(run: "Run", store: Store) -> "Run":
    """A run that knows no data as if that of ``store`` were its own; UserError where images or classes do not fit."""
    card = run.data
    if card.content_hash:
        return run
    if store.shape != card.shape:
        given, due = map(sized, (store.shape, card.shape))
        raise UserError("", store.path, f"holds images of {given}, {run.path} makes {due}", "name another store")
    if card.scale not in (PIXELS, store.scale):
        differs = f"has the scale {store.scale.pairs}, and {run.path} {card.scale.pairs}"
        raise UserError("", store.path, differs, "name another store")
    if run.config.model.num_classes not in (0, len(store.classes)):
        count = run.config.model.num_classes
        classes = counted(len(store.classes), "class", "classes")
        raise UserError("", store.path, f"has {classes}, {run.path} knows {count}", "name another store")
    if run.config.model.num_classes:
        _check_names(run.path, card.classes, store)
    known = {"counts": store.counts, "content_hash": store.content_hash, "scale": store.scale}
    return replace(run, data=replace(card, **known))  # type: ignore[arg-type]


def _check_names(folder: Path, names: Sequence[str], store: Store) -> None:
    """Raise UserError where a number is one class of the run and another of the store; without names nobody knows."""
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
