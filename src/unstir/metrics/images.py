"""Images that are there, to be judged: from folders, zips, NumPy files or arrays, as they are and in no other size.

A subfolder for each class, named as the store names it, says which class its images were asked to show. A folder that
`unstir sample` or `unstir evaluate` drew says so itself. Nothing is resized or cropped, for that changes every figure.
"""

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unstir import randomness
from unstir.data import Store, is_store
from unstir.data.disk import file_errors, open_file, usable_path
from unstir.data.images import COLOUR_LOST, Refused, decode, signature
from unstir.data.listing import Entry, Items, Listing, list_folder, list_zip, natural
from unstir.data.store import class_number
from unstir.errors import UserError, printable
from unstir.generate.folder import SETTINGS, image_path, settings_in
from unstir.metrics.evaluation import SHARES
from unstir.metrics.features import given
from unstir.metrics.floor import AS_ASKED
from unstir.progress import Say, unsaid
from unstir.runs.card import Labels
from unstir.runs.run import is_run

ARRAYS = ".npy", ".npz"
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
    def most(self) -> int:
        """The images of the smallest part."""
        return min(map(len, self.parts))

    def sets(self, num: int, seeds: int) -> tuple[list[Tensor], list[Tensor] | None]:
        """``seeds`` sets of ``num`` images, uint8 [num, C, H, W], and the classes asked for, int64 [num] each, or None.

        Each part is a set; one part alone is divided at random, each class evenly where classes were asked for. Of
        more images than are needed some are taken at random, and all are kept in their order.
        """
        where = self._where(num, seeds)
        return [self.parts[k][index] for k, index in where], self.classes(num, seeds)

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
    say: Say = unsaid,
) -> Images:
    """The images of a source, of the store's shape; UserError for what is no image or of another shape.

    ``label``, a class by name or number, is that of all; ``labels``, int64 [N], one for each image of an array or of
    batches. ``say`` is called with what was done to files out of the ordinary.
    """
    paths = _paths(source)
    if paths:
        read = [_read(path, store, say) for path in paths]
        parts, asked = tuple(images for images, _ in read), tuple(classes for _, classes in read)
        name = ", ".join(printable(path) for path in paths)
    else:
        parts, name = _parts(source, store), "the images"
        given_labels = None if labels is None else torch.as_tensor(labels, dtype=torch.int64).reshape(len(parts), -1)
        asked = (None,) * len(parts) if given_labels is None else tuple(given_labels)
    if label is not None:
        number = class_number(store.classes, label)
        asked = tuple(torch.full((len(part),), number) for part in parts)
    known = tuple(each for each in asked if each is not None)
    _check_labels(known, parts, store, name)
    return Images(name, parts, known if len(known) == len(parts) else None)


def _check_labels(known: Sequence[Tensor], parts: Sequence[Tensor], store: Store, name: str) -> None:
    if known and len(known) < len(parts):
        raise UserError(f"of {name} some say which classes they show and some do not; give all alike, or --label")
    for labels, images in zip(known, parts, strict=False):
        if len(labels) != len(images):
            raise UserError(f"{len(labels)} labels were given for {len(images)} images; give one for each")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(store.classes):
            raise UserError(f"labels are outside 0..{len(store.classes) - 1}, the classes of {store.path}")


def _paths(source: Source) -> list[Path]:
    """The paths that a source is, if it is paths."""
    if isinstance(source, str | Path):
        return [usable_path(source)]
    if isinstance(source, list | tuple) and source and all(isinstance(each, str | Path) for each in source):
        return list(map(usable_path, source))
    return []


def _parts(source: Source, store: Store) -> tuple[Tensor, ...]:
    """The sets of an array, or the one of batches."""
    if isinstance(source, Tensor | np.ndarray):
        array = _tensor(source)
        return tuple(_array(each, store, "the array") for each in (array if array.ndim == 5 else [array]))
    assert not isinstance(source, str | Path)
    batches = [_array(_tensor(each), store, "a batch") for each in source]
    if not batches:
        raise UserError("no images were given; give a folder, an array or batches of some")
    return (torch.cat(batches),)


def _tensor(array: Any) -> Tensor:
    """An array as a tensor, copied where its memory may not be written to."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements=["W", "C"]))


def _array(array: Tensor, store: Store, name: str) -> Tensor:
    """An array as uint8 [N, C, H, W]; UserError for another type or shape."""
    channels, height, width = store.shape
    if array.dtype != torch.uint8:
        how = "unstir.pixels.to_uint8 makes them of floats in [-1, 1]"
        raise UserError(f"{name}: {given(array)}; give uint8 values 0..255 ({how})")
    array = array.cpu()
    for found in (array, *([array.movedim(-1, 1)] if array.ndim == 4 else []), *([array[:, None]] * (array.ndim == 3))):
        if tuple(found.shape[1:]) == store.shape:
            return found.contiguous()
    wanted = f"[N, {channels}, {height}, {width}] or [N, {height}, {width}, {channels}]"
    raise UserError(f"{name}: {given(array)}; {store.path} needs {wanted}: pack a store of such images to compare with")


def _read(path: Path, store: Store, say: Say) -> tuple[Tensor, Tensor | None]:
    """The images of a folder, zip or NumPy file, and the classes that they were asked to show, if that is said."""
    with file_errors(path, f"{path} is not there; give a folder of images, a zip of one, or a .npy or .npz file"):
        path.stat()
    if path.is_dir():
        if is_run(path) or is_store(path):
            raise UserError(f"{path} is {'a run; give it without --images' if is_run(path) else 'a store, no images'}")
        listing = list_folder(path)
        drawn, asked = _drawn(path, listing, store)
        if drawn is not None:
            return _decoded(path, drawn, store, say), asked
    elif path.suffix.lower() in ARRAYS:
        return _of_numpy(path, store)
    else:
        with file_errors(path), open_file(path) as stream:
            if signature(stream.read(16)):
                raise UserError(f"{path} is one image; give the folder that holds them all")
        listing = list_zip(path)
    if listing.refused:
        (file, why), more = listing.refused[0], len(listing.refused) - 1
        raise UserError(f"{path}: {printable(file)!r} cannot be judged: {why}{f'; and {more} more' if more else ''}")
    entries = sorted(listing.entries, key=lambda entry: natural(entry.path))
    if not entries:
        raise UserError(f"{path} holds no images; give a folder of PNG, JPEG, WebP, BMP, GIF or TIFF files")
    return _decoded(path, entries, store, say), _by_subfolder(entries, store)


def _of_numpy(path: Path, store: Store) -> tuple[Tensor, Tensor | None]:
    """The images of a .npy file, or the first array of an .npz one, of which a second array may be the classes."""
    whole = f"{path} is no whole NumPy file of uint8 images; write one by numpy.save or numpy.savez"
    try:
        with file_errors(path), open_file(path) as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = [loaded[name] for name in loaded.files[:2]] if hasattr(loaded, "files") else [loaded]
        found = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise UserError(whole) from None
    if not found:
        raise UserError(whole)
    images, *rest = found
    asked = rest[0].long() if rest and rest[0].ndim == 1 and not rest[0].is_floating_point() else None
    return _array(images, store, printable(path)), asked


def _drawn(path: Path, listing: Listing, store: Store) -> tuple[list[Entry] | None, Tensor | None]:
    """The files and classes of a folder that unstir drew, in their order; None, None for another folder."""
    if not (path / SETTINGS).is_file():
        return None, None
    with suppress(UserError, KeyError, TypeError, ValueError, AttributeError):  # of another program
        settings = settings_in(path)
        label, shares, count = settings["label"], tuple(settings.get("shares", ())), settings["model"]["num_classes"]
        numbered = {int(stem): entry for entry in listing.entries if (stem := Path(entry.path).stem).isdecimal()}
        numbers = [number for number in sorted(numbered) if image_path(path, number) == path / numbered[number].path]
        known = Labels(count, store.classes) if count == len(store.classes) else Labels()
        asked = known.of(torch.tensor(numbers), label, shares) if known.count else None
        return [numbered[number] for number in numbers], asked
    return None, None


def _by_subfolder(entries: Sequence[Entry], store: Store) -> Tensor | None:
    """The classes that the names of the first folders say, where all do."""
    numbers = {name: number for number, name in enumerate(store.classes)}
    tops = [printable(entry.path.split("/")[0]) if "/" in entry.path else "" for entry in entries]
    return torch.tensor([numbers[top] for top in tops]) if entries and all(top in numbers for top in tops) else None


def _decoded(path: Path, entries: Sequence[Entry], store: Store, say: Say) -> Tensor:
    """The images of some files, uint8 [N, C, H, W]; UserError naming the first that is none or of another shape."""
    channels, *_ = store.shape
    pixels, notes = np.empty((len(entries), *store.shape), np.uint8), Counter[str]()
    with closing(Items(path)) as items:
        for number, entry in enumerate(entries):
            file = f"{path}: {printable(entry.path)!r}"
            try:
                data = items.read(entry.path)
                image = decode(data, entry.path, None, channels)
            except Refused as error:
                raise UserError(f"{file} cannot be judged: {error}; remove it, or make it again") from None
            if image.pixels.shape != store.shape:
                was, due = ("x".join(map(str, shape[:0:-1])) for shape in (image.pixels.shape, store.shape))
                size = f"make images of {due}, or pack a store with --size {min(image.pixels.shape[1:])}"
                raise UserError(f"{file} is {was}, {store.path} holds images of {due}; {size}")
            _check_colours(file, data, image.notes, store)
            notes.update(image.notes)
            notes["JPEG, whose losses the figures see"] += signature(data[:16]) == "JPEG"
            pixels[number] = image.pixels
    for note, count in notes.items():
        if count:
            say(f"{path}: {count} of {len(entries)} images: {note}")
    return torch.from_numpy(pixels)


def _check_colours(file: str, data: bytes, notes: Sequence[str], store: Store) -> None:
    """Raise UserError for an image in colour where the store is grey, and for a grey one where it is in colour."""
    if store.shape[0] == 1 and COLOUR_LOST in notes:
        raise UserError(f"{file} is in colour, {store.path} is grey; pack a store with --channels 3")
    if store.shape[0] == 3:
        with Image.open(io.BytesIO(data)) as image:
            grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        if grey:
            raise UserError(
                f"{file} is grey, {store.path} is in colour; save it in RGB, or pack a store with --channels 1"
            )
