"""Images that any program made, to be judged: from folders, zips, NumPy files or arrays, in no other size.

Nothing is resized, cropped or made grey. Files are packed into a store that lasts no longer: what `unstir data pack`
reads is read, in its order.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store, is_store, pack
from unstir.data.classes import class_number, matched, some
from unstir.data.disk import usable_path
from unstir.data.images import COLOUR_LOST
from unstir.data.source import NUMBERED
from unstir.errors import UserError, printable
from unstir.generate.folder import SETTINGS, classes_in, settings_in
from unstir.metrics.evaluation import SHARES
from unstir.metrics.feature_figures import FEWEST
from unstir.metrics.features import wrong_images
from unstir.pixels import Scale
from unstir.progress import counted, counting, sized
from unstir.runs.card import Labels
from unstir.runs.toml import is_run

logger = logging.getLogger(__name__)

AS_GIVEN = "as given"  # the label of a protocol of classes in other numbers than the data has
Source = str | Path | Tensor | np.ndarray[Any, Any] | Iterable[Any]
"""A folder, zip or NumPy file, an array uint8 [N, C, H, W] (or [N, H, W, C], or grey [N, H, W]), or batches of these;
several paths, or an array with one dimension more, are a set each."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images by where they come from (``name``), uint8 [N, C, H, W] each, and the classes asked for, int64 [N]."""

    name: str
    parts: tuple[Tensor, ...]
    asked: tuple[Tensor, ...] | None = None
    home: ClassVar[None] = None  # figures are kept with the store

    @cached_property
    def hash(self) -> str:
        """The SHA-256 (hex) of all images in their order, of how they are parted, and of the classes asked for."""
        digest = hashlib.sha256(json.dumps([list(part.shape) for part in self.parts]).encode())
        for tensor in (*self.parts, *(self.asked or ())):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def about(self) -> Mapping[str, Any]:
        """Where they come from."""
        return {"source": self.name}

    def most(self, seeds: int) -> int:
        """How many images each of ``seeds`` sets can have."""
        return min(map(len, self.parts)) // (max(seeds, 1) if len(self.parts) == 1 else 1)

    def check(self, num: int, seeds: int, store: Store) -> None:
        """Raise UserError where there are not ``seeds`` sets of ``num`` images, or of `FEWEST`."""
        most, count = self.most(seeds), len(self.parts)
        if seeds != count > 1:
            raise UserError("seeds", seeds, f"is not the number of sets, {count}", {"seeds": None})
        if most < FEWEST:
            few = f"holds {counted(min(map(len, self.parts)), 'image')}, too few for sets of {FEWEST}"
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
    """The classes asked for as a protocol has them: none, one, by the data's shares (within one image), or others."""
    if asked is None:
        return None
    if int((together := torch.cat(list(asked))).min()) == int(together.max()):
        return int(together[0])
    real = store.labels("train")
    assert real is not None
    shares = real.bincount(minlength=len(store.classes)).double() / len(real)
    off = [labels.bincount(minlength=len(shares)) - len(labels) * shares for labels in asked]
    return SHARES if all(bool((each.abs() <= shares.sign() + 1e-9).all()) for each in off) else AS_GIVEN


def images_of(
    source: Source, store: Store, label: str | None = None, labels: Sequence[int] | Tensor | None = None
) -> Images:
    """The images of a source, of the store's shape; UserError for what is no image or of another shape.

    ``label``, a class by name or number, is that of all; ``labels``, int64 [N], one for each image of an array or of
    batches.
    """
    paths = _paths_of(source)
    if paths:
        if labels is not None:
            raise UserError("labels", None, "are for an array or batches", "sort files into a folder for each class")
        like = Like(store.path, store.shape, store.classes if label is None else (), store.scale)
        with counting("reading the images", "images"):
            there = [read(path, like) for path in paths]
        parts, asked = tuple(images for images, *_ in there), tuple(classes for _, classes, _ in there)
        name = ", ".join(printable(path) for path in paths)
    else:
        parts, asked, name = _parts(source, store), (), "the images"
    if not parts or not all(map(len, parts)):
        raise UserError("", name, "must hold at least one image in each set")
    alike = (a for a, b in combinations(parts, 2) if torch.equal(a, b))
    if any(not torch.equal(a, a[:1].expand_as(a)) for a in alike):  # a generator may make one image for ever
        raise UserError("", name, "hold the same images twice", "give each set once")
    if label is not None:
        number = class_number(store.classes, label)
        asked = tuple(torch.full((len(part),), number) for part in parts)
    elif labels is not None:
        asked = _divided(labels, parts)
    known = tuple(each for each in asked if each is not None)
    if known and len(known) < len(parts):
        raise UserError("", name, "say for some sets alone which classes they show", "say it for all, or name a label")
    if any(not 0 <= each.min() <= each.max() < len(store.classes) for each in known):
        raise UserError("labels", None, f"must be in 0..{len(store.classes) - 1}, the classes of {store.path}")
    return Images(name, parts, known or None)


def _divided(labels: Sequence[int] | Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One label for each image of sets of equal size, by set: int64 [N] each; UserError for another number of them."""
    total = sum(map(len, parts))
    try:
        given = torch.as_tensor(labels).flatten()
        numbers = given.long()
        fit = len(numbers) == total and bool((numbers == given).all())
    except (TypeError, ValueError, RuntimeError):
        fit = False
    if not fit:
        raise UserError("labels", None, f"must be {total} whole numbers, the class of each image")
    return tuple(numbers.reshape(len(parts), len(parts[0])))


def _paths_of(source: Source) -> list[Path]:
    several = source if isinstance(source, list | tuple) else [source]
    paths = [usable_path(path) for path in several if isinstance(path, str | Path)]
    return paths if len(paths) == len(several) else []


def _as_tensor(array: Any) -> Tensor:
    """An array as a tensor, copied where its memory may not be written to."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements=["W", "C"]))


def _as_images(array: Tensor, store: Store) -> Tensor:
    """An array as uint8 [N, C, H, W], or float32 in units of the store; UserError for another type or shape."""
    channels, height, width = store.shape
    if store.scale.is_float and array.dtype != torch.float32:
        raise wrong_images(array, "float32 in units of the data")
    if not store.scale.is_float and array.dtype != torch.uint8:
        raise wrong_images(array, "uint8 in 0..255 (unstir.pixels.to_uint8 makes these of floats in [-1, 1])")
    array = array.cpu()
    views = {3: [array[:, None]], 4: [array, array.movedim(-1, 1)]} if array.ndim > 1 else {}
    for images in views.get(array.ndim, []):
        if tuple(images.shape[1:]) == store.shape:
            return images.contiguous()
    due = f"[N, {channels}, {height}, {width}] or [N, {height}, {width}, {channels}]"
    raise wrong_images(array, f"{due}, as in {store.path}")


def _parts(source: Source, store: Store) -> tuple[Tensor, ...]:
    if isinstance(source, Tensor | np.ndarray):
        array = _as_tensor(source)
        return tuple(_as_images(images, store) for images in (array if array.ndim == 5 else [array]))
    if not isinstance(source, Iterable):
        raise UserError("images", source, "must be a folder, an array or batches of some")
    batches = list[Tensor]()
    for batch in source:
        if isinstance(batch, tuple | list):
            raise UserError("images", None, "come in batches with something else", "give the images alone, and labels")
        batches.append(_as_images(_as_tensor(batch), store))
    return (torch.cat(batches),) if batches else ()


class Like(NamedTuple):
    """What images are to be like, as a `Store` says it too; without ``classes`` theirs are not asked for."""

    path: Path
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    scale: Scale


def read(path: Path, store: Store | Like) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The images of a folder or file, with the classes asked for, int64 [N], and conditions, float32 [N, ...], if any.

    Classes that are not the store's are logged. Raises UserError for what is no image, or not of the shape and the
    colours of the store, OSError for what cannot be read.
    """
    path.stat()
    if kind := "run" if is_run(path) else "store" if is_store(path) else "":
        raise UserError("", path, f"is a {kind} and no images", f"name it as the {kind}")
    with tempfile.TemporaryDirectory() as folder:
        depth = "float" if store.scale.is_float else "8"
        packed = pack(path, Path(folder) / "images", channels=store.shape[0], held_out=0.0, depth=depth)
        _check(packed, store, path)
        for note in () if (path / SETTINGS).is_file() else packed.notes:  # sheets and settings are none of the images
            if note.text != NUMBERED:
                logger.warning(f"{path}: {note}")
        images, asked, conditions = (packed.together(kind) for kind in ("images", "labels", "conditions"))
    assert images is not None
    if asked is None:
        return images, _of_drawn(path, len(images), store), conditions
    by_number = range(len(store.classes)) if packed.manifest["kind"] == "numpy" else ()
    return images, _of_names(path, asked, packed.classes, store, by_number), conditions


def _check(packed: Store, store: Store | Like, path: Path) -> None:
    if packed.refused:
        file, why = packed.refused[0]
        raise UserError("", file, f"cannot be judged: {why}", "remove it, or make it again").at(path)
    if any(note.text == COLOUR_LOST for note in packed.notes):
        raise UserError("", path, f"has images in colour, {store.path} is grey", "pack a store with 3 channels")
    if packed.shape != store.shape:
        was, due = (sized(each.shape[1:]) for each in (packed, store))
        other = f"make images of {due}, or pack a store of {was}"
        raise UserError("", path, f"holds images of {was}, {store.path} of {due}", other)


def _of_drawn(path: Path, num: int, store: Store | Like) -> Tensor | None:
    """The classes that a folder which unstir drew was asked for, int64 [num], by their names in the store."""
    if not (path / SETTINGS).is_file():
        return None
    with suppress(OSError, KeyError, TypeError, ValueError, AttributeError, IndexError):  # of another program
        settings = settings_in(path)
        label, shares, count = settings["label"], tuple(settings.get("shares", ())), settings["model"]["num_classes"]
        numbers = sorted(int(file.stem) for file in path.glob("*.png") if file.stem.isdecimal()) or list(range(num))
        if len(numbers) != num:
            return None
        asked = Labels(count).of(torch.tensor(numbers), label, shares)
        if asked is not None and (count != len(store.classes) or len(classes_in(path)) == count):
            asked = _of_names(path, asked, classes_in(path), store)
        return asked
    return None


def _of_names(
    path: Path, asked: Tensor, names: Sequence[str], store: Store | Like, by_number: Sequence[int] = ()
) -> Tensor | None:
    """The store's numbers, int64 [N], of classes ``asked`` for by these names or numbers; None, said, for others."""
    known = {name: i for i, name in enumerate(store.classes)}
    if by_number and set(names) - set(known):  # names or numbers, never some of each
        known = {str(number): number for number in by_number}
    others = sorted(set(names) - set(known))
    numbers = matched(names, store.classes) if others or not names else tuple(known[name] for name in names)
    if numbers is None and store.classes:
        given = some(others or names) or "without names"
        logger.warning(f"{path} has classes that {store.path} has not ({given}): its images are judged as of no class")
    return None if numbers is None else torch.tensor(numbers)[asked]
