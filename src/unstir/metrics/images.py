"""Images that any program made, to be judged: from folders, zips, NumPy files or arrays, in no other size.

Nothing is resized or cropped, for that changes every figure. `image_files` reads files.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.data.classes import class_number
from unstir.data.disk import usable_path
from unstir.errors import UserError, printable
from unstir.metrics.evaluation import SHARES
from unstir.metrics.features import wrong_images
from unstir.metrics.floor import AS_ASKED, FEWEST
from unstir.metrics.image_files import read
from unstir.progress import counted, counting

AS_GIVEN = "as given"  # the label of a protocol in which classes were asked for in other numbers than the data has
Source = str | Path | Tensor | np.ndarray[Any, Any] | Iterable[Any]
"""A folder, zip or NumPy file, an array uint8 [N, C, H, W] (or [N, H, W, C], or grey [N, H, W]), or batches of these;
several paths, or an array with one dimension more, are a set each."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images by where they come from, uint8 [N, C, H, W] each, and the classes asked for, int64 [N] each, or None.

    ``name`` says where from.
    """

    name: str
    parts: tuple[Tensor, ...]
    asked: tuple[Tensor, ...] | None = None

    @cached_property
    def hash(self) -> str:
        """The SHA-256 (hex) of all images in their order, of how they are parted, and of the classes asked for."""
        digest = hashlib.sha256(json.dumps([list(part.shape) for part in self.parts]).encode())
        for tensor in (*self.parts, *(self.asked or ())):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def home(self) -> None:
        """Figures are kept with the store."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Where they come from."""
        return {"source": self.name}

    @property
    def there(self) -> int:
        """The images of the smallest part."""
        return min(map(len, self.parts))

    def most(self, seeds: int) -> int:
        """How many images each of ``seeds`` sets can have."""
        return self.there // max(seeds, 1) if len(self.parts) == 1 else self.there

    def check(self, num: int, seeds: int, store: Store) -> None:
        """Raise UserError where there are not ``seeds`` sets of ``num`` images, or of `FEWEST`."""
        most, count = self.most(seeds), len(self.parts)
        if seeds != count > 1:
            raise UserError("seeds", seeds, f"is not the number of sets, {count}", {"seeds": None})
        if most < FEWEST:
            few = f"holds {counted(self.there, 'image')}, too few for sets of {FEWEST}"
            raise UserError("", self.name, few, "give hundreds")
        if num > most:
            raise UserError("num", num, f"is more than the {most} that {self.name} has for each set", {"num": most})

    def protocol(self, num: int, seeds: int, store: Store) -> dict[str, Any]:
        """The classes asked for, and a hash of the images, by which they are found again."""
        return {"label": label_of(self.classes(num, seeds), store), "images": self.hash}

    def sets(self, num: int, seeds: int) -> list[Tensor]:
        """``seeds`` sets of ``num`` images, uint8 [num, C, H, W].

        Each part is a set; one part alone is divided at random, each class evenly where classes were asked for. Of
        more images than are needed some are taken at random, and all are kept in their order.
        """
        return [self.parts[k][index] for k, index in self._where(num, seeds)]

    def classes(self, num: int, seeds: int) -> list[Tensor] | None:
        """The classes asked for in `sets`, int64 [num] each; None where none were."""
        return None if self.asked is None else [self.asked[k][index] for k, index in self._where(num, seeds)]

    def _where(self, num: int, seeds: int) -> list[tuple[int, Tensor]]:
        """Of each of the `sets` the part that it is from, and which of its images it has, int64 [num]."""
        asked = self.asked or (None,) * len(self.parts)
        if len(self.parts) == 1:
            index = _chosen(len(self.parts[0]), num, seeds, asked[0])
            return [(0, index[k::seeds].sort().values) for k in range(seeds)]
        return [(k, _chosen(len(part), num, 1, asked[k]).sort().values) for k, part in enumerate(self.parts)]


def _chosen(total: int, num: int, seeds: int, asked: Tensor | None) -> Tensor:
    """``num`` times ``seeds`` of ``total`` images at random, int64, such that every ``seeds``-th is one of a set."""
    order = randomness.permutation(0, "sets of images", 0, total)
    if asked is not None:
        order = order[asked[order].argsort(stable=True)]
    return order[torch.arange(num * seeds) * total // (num * seeds)]


def label_of(asked: Sequence[Tensor] | None, store: Store) -> int | str | None:
    """The classes asked for as a protocol has them: none, one, by the data's shares, or in some other numbers.

    Numbers are those of the data's shares within one image, or within a tenth of what chance would make (`AS_ASKED`).
    """
    if asked is None:
        return None
    if int((together := torch.cat(list(asked))).min()) == int(together.max()):
        return int(together[0])
    real = store.labels("train")
    assert real is not None
    shares = real.bincount(minlength=len(store.classes)).double() / len(real)
    for labels in asked:
        likely, off = len(labels) * shares, labels.bincount(minlength=len(shares)) - len(labels) * shares
        among, limit = shares > 0, AS_ASKED * (int((shares > 0).sum()) - 1)
        near = bool((off.abs() <= 1).all()) or float((off**2 / likely)[among].sum()) <= limit
        if not near or bool((off[~among] > 0).any()):
            return AS_GIVEN
    return SHARES


def images_of(
    source: Source,
    store: Store,
    label: str | None = None,
    labels: Sequence[int] | Tensor | None = None,
) -> Images:
    """The images of a source, of the store's shape; UserError for what is no image or of another shape.

    ``label``, a class by name or number, is that of all; ``labels``, int64 [N], one for each image of an array or of
    batches.
    """
    paths = _paths_of(source)
    if paths:
        if labels is not None:
            raise UserError("labels", None, "are for an array or batches", "sort files into a folder for each class")
        with counting("reading the images", "images"):
            there = [read(path, store, label is None) for path in paths]
        parts, asked = tuple(images for images, _ in there), tuple(classes for _, classes in there)
        name = ", ".join(printable(path) for path in paths)
        _check_filled(parts, name)
    else:
        parts, name = _parts(source, store), "the images"
        _check_filled(parts, name)
        asked = (None,) * len(parts) if labels is None else _divided(labels, parts)
    alike = (a for a, b in combinations(parts, 2) if torch.equal(a, b))
    if any(not torch.equal(a, a[:1].expand_as(a)) for a in alike):  # a generator may make one image for ever
        raise UserError("", name, "hold the same images twice", "give each set once")
    if label is not None:
        number = class_number(store.classes, label)
        asked = tuple(torch.full((len(part),), number) for part in parts)
    known = tuple(each for each in asked if each is not None)
    _check_labels(known, parts, store, name)
    return Images(name, parts, known if len(known) == len(parts) else None)


def _check_filled(parts: Sequence[Tensor], name: str) -> None:
    if not parts or not all(map(len, parts)):
        raise UserError("", name, "must hold at least one image in each set")


def _divided(labels: Sequence[int] | Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One label for each image of sets of equal size, by set: int64 [N] each; UserError for another number of them."""
    try:
        numbers, total = torch.as_tensor(labels).flatten(), sum(map(len, parts))
    except (TypeError, ValueError, RuntimeError):
        raise UserError("labels", None, "must be the numbers of classes, int64") from None
    if len(numbers) != total:
        raise UserError("labels", None, f"must be {total} numbers, one for each image, not {len(numbers)}")
    if numbers.is_complex() or not torch.equal(numbers.trunc() if numbers.is_floating_point() else numbers, numbers):
        raise UserError("labels", None, "must be the numbers of classes, int64")
    return tuple(numbers.long().reshape(len(parts), len(parts[0])))


def _check_labels(known: Sequence[Tensor], parts: Sequence[Tensor], store: Store, name: str) -> None:
    if known and len(known) < len(parts):
        raise UserError("", name, "say for some sets alone which classes they show", "say it for all, or name a label")
    for labels in known:
        if not 0 <= labels.min() <= labels.max() < len(store.classes):
            raise UserError("labels", None, f"must be in 0..{len(store.classes) - 1}, the classes of {store.path}")


def _paths_of(source: Source) -> list[Path]:
    """The paths that a source is, if it is paths."""
    if isinstance(source, str | Path):
        return [usable_path(source)]
    if isinstance(source, list | tuple) and source and all(isinstance(each, str | Path) for each in source):
        return list(map(usable_path, source))
    return []


def _as_tensor(array: Any) -> Tensor:
    """An array as a tensor, copied where its memory may not be written to."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements=["W", "C"]))


def _as_images(array: Tensor, store: Store) -> Tensor:
    """An array as uint8 [N, C, H, W]; UserError for another type or shape."""
    channels, height, width = store.shape
    if array.dtype != torch.uint8:
        raise wrong_images(array, "uint8 in 0..255 (unstir.pixels.to_uint8 makes these of floats in [-1, 1])")
    array = array.cpu()
    for images in (
        array, *([array.movedim(-1, 1)] if array.ndim == 4 else []), *([array[:, None]] * (array.ndim == 3)),
    ):  # fmt: skip
        if tuple(images.shape[1:]) == store.shape:
            return images.contiguous()
    due = f"[N, {channels}, {height}, {width}] or [N, {height}, {width}, {channels}]"
    raise wrong_images(array, f"{due}, as in {store.path}")


def _parts(source: Source, store: Store) -> tuple[Tensor, ...]:
    """The sets of an array, or the one of batches."""
    if isinstance(source, Tensor | np.ndarray):
        array = _as_tensor(source)
        return tuple(_as_images(images, store) for images in (array if array.ndim == 5 else [array]))
    if not isinstance(source, Iterable) or isinstance(source, str | Path):
        raise UserError("images", source, "must be a folder, an array or batches of some")
    batches = [_as_images(_as_tensor(batch), store) for batch in source]
    return (torch.cat(batches),) if batches else ()
