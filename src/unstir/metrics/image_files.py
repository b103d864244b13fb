"""Files of images read for `images`: packed into a store that lasts no longer, and the classes asked for.

What `unstir data pack` reads is read, in its order, but nothing is resized or made grey. A subfolder for each class,
named as the store names it, says which class its images were asked to show. A folder that `unstir sample` or `unstir
evaluate` drew says so itself.
"""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from unstir.data import SPLITS, Store, is_store, pack
from unstir.data.classes import matched, some
from unstir.data.disk import refuse_onnx
from unstir.data.images import COLOUR_LOST
from unstir.errors import UserError
from unstir.generate.folder import SETTINGS, classes_in, settings_in
from unstir.progress import counted
from unstir.runs.card import Labels
from unstir.runs.run import is_run

logger = logging.getLogger(__name__)


def read(path: Path, store: Store, by_class: bool = True) -> tuple[Tensor, Tensor | None]:
    """The images of a folder or file, uint8 [N, C, H, W], and the classes asked for, int64 [N], if these are said.

    Classes that are not the store's are logged unless ``by_class`` is False. Raises UserError for what is no
    image, or not of the shape and the colours of the store, OSError for what cannot be read.
    """
    path.stat()
    refuse_onnx(path, "images")
    if kind := "run" if is_run(path) else "store" if is_store(path) else "":
        raise UserError("", path, f"is a {kind} and no images", f"name it as the {kind}")
    with tempfile.TemporaryDirectory() as folder:
        packed = pack(path, Path(folder) / "images", channels=store.shape[0], held_out=0.0)
        _check(packed, store, path)
        for note in () if (path / SETTINGS).is_file() else packed.notes:  # sheets and settings are none of the images
            logger.warning(f"{path}: {note.count} of {counted(sum(map(packed.count, SPLITS)), 'image')}: {note.text}")
        labels = [packed.labels(split) for split in SPLITS]
        images = torch.cat([packed.images(split) for split in SPLITS])
        asked = None if labels[0] is None else torch.cat([each for each in labels if each is not None])
    if asked is None:
        return images, _of_drawn(path, len(images), store, by_class)
    names = packed.classes
    numbers = {name: number for number, name in enumerate(store.classes)}
    if packed.manifest["kind"] == "numpy":  # whose classes may be the store's by number
        numbers = {str(number): number for number in range(len(numbers))} | numbers
    if set(names) <= set(numbers):
        return images, torch.tensor([numbers[name] for name in names])[asked]
    if by_class and numbers:
        others = some(sorted(set(names) - set(numbers)))
        logger.warning(f"{path} has classes that {store.path} has not ({others}): its images are judged as of no class")
    return images, None


def _check(packed: Store, store: Store, path: Path) -> None:
    """Raise UserError where a file was left out, or images are of another shape than the store's or lost colours."""
    if packed.refused:
        file, why = packed.refused[0]
        raise UserError("", file, f"cannot be judged: {why}", "remove it, or make it again").at(path)
    if any(note.text == COLOUR_LOST for note in packed.notes):
        raise UserError("", path, f"has images in colour, {store.path} is grey", "pack a store with 3 channels")
    if packed.shape != store.shape:
        was, due = ("x".join(map(str, shape[:0:-1])) for shape in (packed.shape, store.shape))
        other = f"make images of {due}, or pack a store of {was}"
        raise UserError("", path, f"holds images of {was}, {store.path} of {due}", other)


def _of_drawn(path: Path, num: int, store: Store, by_class: bool) -> Tensor | None:
    """The classes that a folder which unstir drew was asked for, int64 [num], by their names in the store."""
    if not (path / SETTINGS).is_file():
        return None
    with suppress(OSError, KeyError, TypeError, ValueError, AttributeError, IndexError):  # of another program
        settings = settings_in(path)
        label, shares, count = settings["label"], tuple(settings.get("shares", ())), settings["model"]["num_classes"]
        numbers = sorted(int(file.stem) for file in path.glob("*.png") if file.stem.isdecimal())
        if len(numbers) != num or not count:
            return None
        asked = Labels(count).of(torch.tensor(numbers), label, shares)
        if asked is not None and (count != len(store.classes) or len(classes_in(path)) == count):
            asked = _of_names(path, asked, classes_in(path), store, by_class)
        return asked
    return None


def _of_names(path: Path, asked: Tensor, names: Sequence[str], store: Store, by_class: bool) -> Tensor | None:
    """The store's numbers of the classes ``asked`` for, int64 [N], which have these names; None, said, for others."""
    numbers = matched(names, store.classes)
    if numbers is None and by_class:
        given = some(names) or "without names"
        others = f"asked for by other classes ({given}) than those of {store.path} ({some(store.classes) or 'none'})"
        logger.warning(f"{path} was {others}: its images are judged as of no class")
    return None if numbers is None else torch.tensor(numbers)[asked]
