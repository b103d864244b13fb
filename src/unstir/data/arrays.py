"""Images that are arrays: .npy, .npz and idx files, arrays in memory, and the items of a torch Dataset.

MNIST and its relatives are idx files: NAME-images-idx3-ubyte beside NAME-labels-idx1-ubyte, unpacked or .gz. Such a
file is 0, 0, 8 (unsigned bytes), the number of dimensions, each as 4 bytes, the highest first, and then the values.
"""

import gzip
import hashlib
import re
import zipfile
import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unstir.data.classes import as_label
from unstir.data.disk import open_file
from unstir.data.images import LEFT_OUT, Refused, check_bits, check_pixels, grey_of_16_bits
from unstir.data.records import BROKEN, Records, Rows, Rule, rule_of
from unstir.data.source import HELD_OUT_NAMES, Options, checked_conditions
from unstir.errors import UserError

_IMAGES = "images", "image", "x", "data", "arr_0"
_LABELS = "labels", "label", "targets", "target", "y", "arr_1"
_KEYS = _IMAGES, _LABELS, ("mask", "masks"), ("conditions",)
_FURTHER = f"{LEFT_OUT}: an array that is neither the images nor their labels"
_SAMPLED = 16  # items of a Dataset, evenly spread, that stand for all
_IDX = re.compile(r"(.*?)(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_MOST = 1 << 31  # bytes of an idx file, unpacked


class ArrayFile(Records):
    """A .npy file of images, mapped into memory, or a .npz file of images and labels."""

    kind = "numpy"
    looked_at = 1 << 40

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
        return rows_of(arrays, file.name, self.name, self.options.depth)


class TiffFile(Records):
    """The pages of a TIFF file, an image each; arrays where they are wider than 16 bits."""

    kind = "tiff"

    def rows(self) -> list[Rows]:
        """The pages in order."""
        (file,) = self.files
        try:
            with Image.open(file, formats=["TIFF"]) as image:
                pages = [_page(image, number, self.is_float) for number in range(getattr(image, "n_frames", 1))]
        except (OSError, SyntaxError, ValueError, Refused):
            raise UserError("", file, "is damaged, too large, or of another kind", "give arrays as .npy") from None
        return [Rows("train", file.name, [None] * len(pages), pages.__getitem__)]


def idx_in(path: Path) -> list[Path]:
    """The idx files in a folder, its raw or NAME/raw, if any; UserError where there are several sets."""
    if _IDX.fullmatch(path.name) and path.is_file():
        raise UserError("source", path, "is one file of a data set", "give the folder that it is in")
    places = [path, path / "raw", *path.glob("*/raw")] if path.is_dir() else []
    files = [file for place in places for file in sorted(place.glob("*-ubyte*")) if _IDX.fullmatch(file.name)]
    if len(sets := {file.parent / _part(file)[0] for file in files}) > 1:
        several = ", ".join(sorted(str(name.relative_to(path)) for name in sets))
        raise UserError("source", path, f"holds several data sets: {several}", "give a folder that has one of them")
    for file in files:
        labels = file.name.replace("images", "labels").replace("idx3", "idx1")
        if not any((file.parent / f"{labels.removesuffix('.gz')}{ending}").is_file() for ending in ("", ".gz")):
            raise UserError("source", file, f"has no labels: {labels} is not beside it", "fetch that file too")
    return files


def _part(file: Path) -> tuple[str, str]:
    """The name of a file's data set, "" where it has none, and the array that the file is, such as test_images."""
    match = _IDX.fullmatch(file.name)
    assert match
    return match[1], f"{match[2].replace('t10k', 'test')}_{match[3]}"


class IdxFiles(Records):
    """The idx files of one data set; where a file is there unpacked too, its .gz is not read."""

    kind = "idx"

    def __init__(self, files: Sequence[Path], options: Options) -> None:
        super().__init__(options, list({_part(file)[1]: file for file in reversed(files)}.values())[::-1])

    def rows(self) -> list[Rows]:
        """The images of both splits."""
        arrays = {_part(file)[1]: _idx_array(file) for file in self.files}
        return rows_of(arrays, "images", self.name, self.options.depth)


def _idx_array(file: Path) -> NDArray[np.uint8]:
    with suppress(gzip.BadGzipFile, EOFError, IndexError, ValueError, zlib.error), open_file(file) as stream:
        data = (gzip.GzipFile(fileobj=stream) if file.suffix == ".gz" else stream).read(_MOST)
        start = 4 + 4 * data[3]
        if data[:3] == b"\0\0\x08":
            return np.frombuffer(data, np.uint8, offset=start).reshape(np.frombuffer(data[4:start], ">u4").tolist())
    raise UserError("", file, "is damaged, or no idx file of unsigned bytes", "fetch it again")


class _Arrays(Records):
    kind = "arrays"
    looked_at = 1 << 40

    def __init__(self, arrays: Mapping[Any, Any], options: Options) -> None:
        super().__init__(options)
        self.name = "the arrays"
        try:
            self._arrays = {str(key): np.asarray(array) for key, array in arrays.items()}
        except ValueError:
            raise UserError("", self.name, "hold lists of several lengths", "give (images, one label each)") from None
        digest = hashlib.sha256()
        for key, array in sorted(self._arrays.items()):
            digest.update(f"{key} {array.dtype} {array.shape}".encode())
            plain = array.dtype.kind not in "OMm"  # the bytes of objects say where they lie
            digest.update(np.ascontiguousarray(array).data if plain else repr(array.tolist()).encode())
        self._stamp = digest.hexdigest()

    def stamp(self) -> str:
        return self._stamp

    def rows(self) -> list[Rows]:
        return rows_of(self._arrays, "images", self.name, self.options.depth)


class _ItemsOfDataset(Records):
    """Anything with a length and items, such as a torch Dataset: each an image, (image, label, ...) or a mapping."""

    kind = "dataset"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._dataset, self.name = options.source, f"the {type(options.source).__name__}"
        whose = getattr(self._dataset, "dataset", self._dataset)  # of a Subset, the whole
        self._classes = tuple(map(str, getattr(whose, "classes", ()) or ()))
        self._further = set[str]()  # keys of items that are not taken

    def stamp(self) -> str:
        """Identify it by its type, length, ``targets`` and some items."""
        digest = hashlib.sha256(f"{self.name} {len(self._dataset)}".encode())
        digest.update(repr(self._targets()).encode("utf-8", "backslashreplace"))
        for index, values, label in self._sampled():
            digest.update(f"{index} {label} {values.shape}".encode() + values.tobytes())
        return digest.hexdigest()

    def _sampled(self) -> Iterator[tuple[int, NDArray[Any], Hashable]]:
        total = len(self._dataset)
        for index in sorted({number * (total - 1) // _SAMPLED for number in range(_SAMPLED + 1)} if total else ()):
            with suppress(*BROKEN):  # that of an item which packing leaves out
                image, label = self._item(index)
                yield index, np.asarray(image), label

    def rows(self) -> list[Rows]:
        """Its items. Labels are its ``targets``, or those of every item, read once for them."""
        labels = self._targets()
        if labels is None:
            labels, label = [], None
            for index in range(len(self._dataset)):
                with suppress(*BROKEN):  # an item that is left out counts among those of the next label
                    label = self._item(index)[1]
                    labels += [label] * (index + 1 - len(labels))
            labels += [label] * (len(self._dataset) - len(labels))
        rule, notes = rule_of([values for _, values, _ in self._sampled()], self.name, self.options.depth)
        notes += [(_FURTHER, f"items: {key}") for key in sorted(self._further)]

        def read(index: int) -> Any:
            image = self._item(index)[0]
            return image if isinstance(image, Image.Image) else rule(image)

        return [Rows("train", "items", labels, read, self._classes, notes)]

    def _targets(self) -> list[Hashable] | None:
        targets = getattr(self._dataset, "targets", None)
        if targets is None or len(targets) != len(self._dataset):
            return None
        return [as_label(target) for target in targets]

    def _item(self, index: int) -> tuple[Any, Hashable]:
        item = self._dataset[index]
        if isinstance(item, Mapping):
            of_image, of_label = (next((key for key in keys if key in item), "") for keys in (_IMAGES, _LABELS))
            if not of_image:
                raise UserError("", self.name, f"has no image in item {index} of keys {', '.join(map(str, item))}")
            self._further |= {str(key) for key in item if key not in (of_image, of_label)}
            return item[of_image], as_label(item.get(of_label))
        if isinstance(item, tuple | list):
            return item[0], as_label(item[1]) if len(item) > 1 else None
        return item, None


def in_memory(options: Options) -> Records:
    """A source in the memory of the program that calls. Raises UserError for what is none."""
    source = options.source
    if isinstance(source, np.ma.MaskedArray):
        source = {"images": source.data, "mask": np.ma.getmaskarray(source)}
    if hasattr(source, "__array__"):
        source = (source,)
    if isinstance(source, tuple):
        if len(source) > 2:
            raise UserError("", f"a tuple of {len(source)} arrays", "is no source", "give images, or (images, labels)")
        lists = isinstance(source[0], list) and hasattr(source[-1], "__len__")
        if lists and len(source[0]) == len(source[-1]):  # images may be of several sizes
            return _ItemsOfDataset(replace(options, source=list(zip(*source, strict=True))))
        source = dict(zip(("images", "labels"), source, strict=False))
    if isinstance(source, Mapping):
        return _Arrays(source, options)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return _ItemsOfDataset(options)
    raise UserError("", type(source).__name__, "is no source of images", "give a path, arrays, or a torch Dataset")


def _page(image: Image.Image, number: int, is_float: bool) -> Any:
    image.seek(number)
    check_pixels(*image.size)
    if is_float:
        check_bits(image)
    elif image.mode.startswith("I;16"):
        return Image.fromarray(grey_of_16_bits(image))
    return np.array(image) if image.mode[0] in "IF" else image.copy()


def rows_of(arrays: Mapping[str, NDArray[Any]], what: str, name: str, depth: str = "auto") -> list[Rows]:
    """The images and labels among arrays by name, which may hold a split; UserError for none, and for other shapes."""
    parts = dict[str, dict[str, str]]()  # split, name without it, key
    for key in arrays:
        words = key.casefold().split("_")
        split = next((word for word in words if word == "train" or word in HELD_OUT_NAMES), "train")
        parts.setdefault(split, {}).setdefault("_".join(word for word in words if word != split) or key, key)
    groups = {
        split: [next((part[key] for key in keys if key in part), "") for keys in _KEYS]
        for split, part in parts.items() if not part.keys().isdisjoint(_IMAGES)
    }  # fmt: skip
    if not groups:
        known = f"{', '.join(_IMAGES)}, x_train or train_images"
        raise UserError("", name, f"has no array named {known} among {', '.join(arrays) or 'none'}")
    for group in groups.values():  # a mask is of each value, or [N, H, W] of all channels; [N] is another thing
        num, *sides = arrays[group[0]].shape
        fitting = (num, *sides), (num, *sides[-2:]), (num, 1, *sides[-2:]), (num, *sides[:2]), (num, *sides[:2], 1)
        if group[2] and (has := arrays[group[2]].shape) not in fitting:
            if len(has) > 1:
                fits_none = f"has a {group[2]} {list(has)} that fits no {group[0]} {[num, *sides]}"
                raise UserError("", name, fits_none, "give [N, H, W], or call it otherwise")
            group[2] = ""
    if len({bool(of_conditions) for *_, of_conditions in groups.values()}) > 1:
        raise UserError("", name, "has conditions of some splits alone", "give them for each split, or for none")
    masked = any(of_mask for _, _, of_mask, _ in groups.values())
    rule, notes = rule_of([arrays[key] for key, *_ in groups.values()], what, "float" if masked else depth)
    notes += [(_FURTHER, f"{what}: {key}") for key in arrays if not any(key in group for group in groups.values())]
    rows = list[Rows]()
    for split, (key, of_labels, of_mask, of_conditions) in groups.items():
        place = what if len(groups) == 1 else f"{what}: {split}"
        images, labels = arrays[key], arrays.get(of_labels)
        if labels is not None and _is_one_hot(labels):
            labels = labels.argmax(1)
            notes.append(("one-hot labels taken as the numbers of classes", f"{what}: {of_labels}"))
        read, conditions = partial(_image, rule, images, arrays.get(of_mask)), arrays.get(of_conditions)
        conditions = None if conditions is None else checked_conditions(conditions, len(images), name)
        rows.append(Rows(split, place, _labels(images, labels, name), read, notes=notes, conditions=conditions))
        notes = []
    return rows


def _image(rule: Rule, images: NDArray[Any], mask: NDArray[Any] | None, index: int) -> Any:
    """An image by the rule, or with NaN where its mask is not 0."""
    if mask is None:
        return rule(images[index])
    hidden, image = mask[index] != 0, images[index]
    if hidden.ndim < image.ndim and hidden.shape != image.shape[-2:]:  # [H, W] of [H, W, C]
        hidden = hidden[..., None]
    return np.where(hidden, np.float32(np.nan), image)


def _is_one_hot(labels: NDArray[Any]) -> bool:
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "buif":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _labels(images: NDArray[Any], labels: NDArray[Any] | None, name: str) -> list[Hashable]:
    if images.ndim not in (3, 4):
        raise UserError("", name, f"has images of shape {list(images.shape)}", "give [N, H, W] or [N, C, H, W]")
    if labels is None:
        return [None] * len(images)
    if labels.shape[:1] != images.shape[:1]:
        raise UserError("", name, f"has labels of shape {list(labels.shape)}, not {list(images.shape[:1])}")
    plain = labels.astype(str) if labels.dtype.kind in "Mm" else labels  # dates and spans of time
    return list((plain[:, 0] if plain.shape[1:] == (1,) else plain).tolist())
