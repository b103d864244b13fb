"""Images that are arrays: .npy and .npz files, arrays in memory, and the items of a torch Dataset."""

import hashlib
import zipfile
import zlib
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unstir.data.images import LEFT_OUT
from unstir.data.records import BROKEN, Records, Rows, plain
from unstir.data.source import Options
from unstir.errors import UserError

_IMAGES = "images", "image", "x", "data", "arr_0"
_CONDITIONS = "conditions"
_LABELS = "labels", "label", "targets", "y", "arr_1"
_SAMPLED = 16  # items of a Dataset that its stamp is made of


class ArrayFile(Records):
    """A .npy file of images, or a .npz file of images and labels; it is mapped into memory where it can be."""

    kind = "numpy"

    def __init__(self, file: Path, options: Options) -> None:
        super().__init__(options)
        self.files = [file]

    def rows(self) -> list[Rows]:
        """The images along the first axis."""
        (file,) = self.files
        try:
            with file.open("rb") as stream:  # NumPy leaves a broken zip open
                zipped = stream.read(2) == b"PK"
                stream.seek(0)
                loaded = np.load(stream if zipped else file, None if zipped else "r", allow_pickle=False)
                arrays = {key: loaded[key] for key in loaded.files} if zipped else {"images": loaded}
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError):
            mend = "write it again, labels as numbers or text: labels.astype(str)"
            raise UserError("", file, "is damaged, or holds arrays of objects", mend) from None
        return _rows(arrays, file.name, self.name)


class _Arrays(Records):
    """Arrays in memory by name, as `numpy.savez` takes them."""

    kind = "arrays"

    def __init__(self, arrays: Mapping[Any, Any], options: Options) -> None:
        super().__init__(options)
        self.name = "the arrays"
        try:
            self._arrays = {str(key): np.asarray(array) for key, array in arrays.items()}
        except ValueError:
            mend = "give a number or text for each image"
            raise UserError("", "labels", "are lists of several lengths", mend) from None
        digest = hashlib.sha256()
        for key, array in sorted(self._arrays.items()):
            digest.update(f"{key} {array.dtype} {array.shape}".encode())
            plain = array.dtype.kind not in "OMm"  # the bytes of objects say where they lie
            digest.update(np.ascontiguousarray(array).data if plain else repr(array.tolist()).encode())
        self._stamp = digest.hexdigest()

    def stamp(self) -> str:
        return self._stamp

    def rows(self) -> list[Rows]:
        return _rows(self._arrays, "images", self.name)


class _ItemsOfDataset(Records):
    """A torch Dataset, or anything else with a length and items, each an image or (image, label, ...).

    Its items must not change from one time to the next: leave out random transforms.
    """

    kind = "dataset"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._dataset, self.name = options.source, f"the {type(options.source).__name__}"
        self._classes = tuple(map(str, getattr(self._dataset, "classes", ()) or ()))

    def stamp(self) -> str:
        """Identify it by its type, its length, its ``targets`` and some items."""
        total, digest = len(self._dataset), hashlib.sha256(f"{self.name} {len(self._dataset)}".encode())
        digest.update(repr(self._targets()).encode("utf-8", "backslashreplace"))
        for index in sorted({number * (total - 1) // _SAMPLED for number in range(_SAMPLED + 1)} if total else ()):
            with suppress(*BROKEN):  # that of an item which packing leaves out
                image, label = self._item(index)
                values = np.asarray(image)
                digest.update(f"{index} {label} {values.shape}".encode() + values.tobytes())
        return digest.hexdigest()

    def rows(self) -> list[Rows]:
        """Its items. Labels are those of its ``targets``, or of every item, read once for them."""
        labels = self._targets()
        if labels is None:
            labels, label = [], None
            for index in range(len(self._dataset)):
                with suppress(*BROKEN):  # an item that is left out counts among those of the next label
                    label = self._item(index)[1]
                    labels += [label] * (index + 1 - len(labels))
            labels += [label] * (len(self._dataset) - len(labels))
        return [Rows("train", "items", labels, lambda index: self._item(index)[0], self._classes)]

    def _targets(self) -> list[Hashable] | None:
        """Its ``targets``, where there is one for each item."""
        targets = getattr(self._dataset, "targets", None)
        if targets is None or len(targets) != len(self._dataset):
            return None
        return [plain(target) for target in targets]

    def _item(self, index: int) -> tuple[Any, Hashable]:
        item = self._dataset[index]
        if isinstance(item, Mapping):
            image = next((item[key] for key in _IMAGES if key in item), None)
            if image is None:
                raise UserError("", self.name, f"has no image in item {index} of keys {', '.join(map(str, item))}")
            return image, plain(next((item[key] for key in _LABELS if key in item), None))
        if isinstance(item, tuple | list):
            return item[0], plain(item[1]) if len(item) > 1 else None
        return item, None


def in_memory(options: Options) -> Records:
    """What the program that calls has in memory. Raises UserError for what is no source."""
    source = options.source
    if hasattr(source, "__array__"):
        source = (source,)
    if isinstance(source, tuple):
        if len(source) > 2:
            raise UserError("", f"a tuple of {len(source)} arrays", "is no source", "give images, or (images, labels)")
        source = dict(zip(("images", "labels"), source, strict=False))
    if isinstance(source, Mapping):
        return _Arrays(source, options)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return _ItemsOfDataset(options)
    raise UserError("", type(source).__name__, "is no source of images", "give a path, arrays, or a torch Dataset")


def _rows(arrays: Mapping[str, NDArray[Any]], what: str, name: str) -> list[Rows]:
    key = next((key for key in _IMAGES if key in arrays), None)
    if key is None:
        raise UserError("", name, f"has no array named {' or '.join(_IMAGES)} among {', '.join(arrays) or 'none'}")
    of_labels = next((key for key in _LABELS if key in arrays), "")
    images, labels = arrays[key], arrays.get(of_labels)
    if images.ndim not in (3, 4):
        mend = "give [N, H, W], [N, H, W, C] or [N, C, H, W]"
        raise UserError("", name, f"has {key} of shape {list(images.shape)}", mend)
    if labels is not None and labels.shape != images.shape[:1]:
        raise UserError("", name, f"has labels of shape {list(labels.shape)}, not {list(images.shape[:1])}")
    if labels is not None and labels.dtype.kind in "Mm":  # dates and spans of time, as text in their own unit
        labels = labels.astype(str)
    listed = [None] * len(images) if labels is None else labels.tolist()
    why = f"{LEFT_OUT}: an array that is neither the images nor their labels"
    notes = [(why, f"{what}: {other}") for other in arrays if other not in (key, of_labels, _CONDITIONS)]
    conditions = arrays.get(_CONDITIONS)
    if conditions is not None and conditions.ndim == 1:
        conditions = conditions[:, None]
    if conditions is not None and (conditions.ndim not in (2, 4) or len(conditions) != len(images)):
        due = f"[{len(images)}, K] or [{len(images)}, C, H, W]"
        raise UserError("", name, f"has conditions of shape {list(conditions.shape)}, not {due}")
    if conditions is not None and not np.isfinite(conditions).all():
        raise UserError("", name, "has conditions that are NaN or infinite")
    return [Rows("train", what, listed, images.__getitem__, notes=notes, conditions=conditions)]
