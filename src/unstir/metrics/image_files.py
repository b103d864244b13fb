"""Files of images read as they are, for `images`: whole ones of a store's shape, and the classes asked for.

A subfolder for each class, named as the store names it, says which class its images were asked to show. A folder that
`unstir sample` or `unstir evaluate` drew says so itself.
"""

import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unstir.data import Store, is_store
from unstir.data.disk import file_errors, open_file
from unstir.data.images import COLOUR_LOST, Refused, decode, signature
from unstir.data.listing import Entry, Items, Listing, list_folder, list_zip, natural
from unstir.data.recognised import ARRAYS, refuse_onnx
from unstir.data.store import matched, some
from unstir.errors import UserError, printable
from unstir.generate.folder import SETTINGS, classes_in, image_path, settings_in
from unstir.metrics.features import given
from unstir.progress import Say, counted, unsaid
from unstir.runs.card import Labels
from unstir.runs.run import is_run


def as_tensor(array: Any) -> Tensor:
    """An array as a tensor, copied where its memory may not be written to."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements=["W", "C"]))


def as_images(array: Tensor, store: Store, name: str) -> Tensor:
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


def read(path: Path, store: Store, say: Say, by_class: bool = True) -> tuple[Tensor, Tensor | None]:
    """The images of a folder, zip or NumPy file, and the classes that they were asked to show, if that is said.

    ``say`` is told of classes that are not the store's unless ``by_class`` is False.
    """
    say_class = say if by_class else unsaid
    with file_errors(path, f"{path} is not there; give a folder of images, a zip of one, or a .npy or .npz file"):
        path.stat()
    refuse_onnx(path, "images")
    if path.is_dir():
        if is_run(path) or is_store(path):
            store_is = "a store, no images; give it as --store, and here images to compare with it"
            raise UserError(f"{path} is {'a run; give it without --images' if is_run(path) else store_is}")
        listing = list_folder(path)
        drawn, asked = _drawn(path, listing, store, say_class)
        if drawn is not None:
            return _decoded(path, drawn, store, say), asked
    elif path.suffix.lower() in ARRAYS:
        return _of_numpy(path, store, say_class)
    else:
        with file_errors(path), open_file(path) as stream:
            if signature(stream.read(16)):
                raise UserError(f"{path} is one image; give the folder that holds them all")
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"{path} is neither a folder, a zip nor a NumPy file (.npy, .npz) of images; give one of these"
            )
        listing = list_zip(path)
    if listing.refused:
        (file, why), more = listing.refused[0], len(listing.refused) - 1
        raise UserError(f"{path}: {printable(file)!r} cannot be judged: {why}{f'; and {more} more' if more else ''}")
    entries = sorted(listing.entries, key=lambda entry: natural(entry.path))
    if not entries:
        raise UserError(f"{path} holds no images; give a folder of PNG, JPEG, WebP, BMP, GIF or TIFF files")
    return _decoded(path, entries, store, say), _by_subfolder(path, entries, store, say_class)


def _of_numpy(path: Path, store: Store, say: Say) -> tuple[Tensor, Tensor | None]:
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
    if rest and asked is None:
        kind = f"{str(rest[0].dtype).removeprefix('torch.')} {list(rest[0].shape)}"
        say(f"{path}: its second array is {kind}, not a whole number for each image: judged as of no class")
    return as_images(images, store, printable(path)), asked


def _drawn(path: Path, listing: Listing, store: Store, say: Say) -> tuple[list[Entry] | None, Tensor | None]:
    """The files and classes of a folder that unstir drew, in their order; None, None for another folder.

    The classes are those of the store that have the names by which the images were asked for.
    """
    if not (path / SETTINGS).is_file():
        return None, None
    with suppress(UserError, KeyError, TypeError, ValueError, AttributeError, IndexError):  # of another program
        settings = settings_in(path)
        label, shares, count = settings["label"], tuple(settings.get("shares", ())), settings["model"]["num_classes"]
        numbered = {int(stem): entry for entry in listing.entries if (stem := Path(entry.path).stem).isdecimal()}
        numbers = [number for number in sorted(numbered) if image_path(path, number) == path / numbered[number].path]
        asked = Labels(count).of(torch.tensor(numbers), label, shares) if count else None
        if asked is not None and (count != len(store.classes) or len(classes_in(path)) == count):
            asked = _of_names(path, asked, classes_in(path), store, say)
        return [numbered[number] for number in numbers], asked
    return None, None


def _of_names(path: Path, asked: Tensor, names: tuple[str, ...], store: Store, say: Say) -> Tensor | None:
    """The store's numbers of the classes ``asked`` for, int64 [N], which have these names; None, said, for others."""
    numbers = matched(names, store.classes)
    if numbers is None:
        given = some(names) or "without names"
        others = f"asked for by other classes ({given}) than those of {store.path} ({some(store.classes) or 'none'})"
        say(f"{path} was {others}: its images are judged as of no class")
    return None if numbers is None else torch.tensor(numbers)[asked]


def _by_subfolder(path: Path, entries: Sequence[Entry], store: Store, say: Say) -> Tensor | None:
    """The classes that the names of the first folders say, where all do; of folders that wrap all others, those in it.

    Other folders are said.
    """
    numbers = {name: number for number, name in enumerate(store.classes)}
    parts = [[part for part in printable(entry.path).split("/") if part != "."] for entry in entries]
    while all(len(names) > 1 and names[0] == parts[0][0] not in numbers for names in parts):
        parts = [names[1:] for names in parts]
    tops = [names[0] if len(names) > 1 else "" for names in parts]
    if all(top in numbers for top in tops):
        return torch.tensor([numbers[top] for top in tops])
    if any(tops) and numbers:
        others = some(sorted({top for top in tops if top not in numbers} - {""}))
        why = f"has folders of no class of {store.path} ({others})" if others else "has images in no folder of a class"
        say(f"{path} {why}: its images are judged as of no class")
    return None


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
                height, width = image.pixels.shape[1:]
                square = f", or pack a store with --size {height}" if height == width else ""
                raise UserError(f"{file} is {was}, {store.path} holds images of {due}; make images of {due}{square}")
            _check_colours(file, data, image.notes, store)
            notes.update(image.notes)
            notes["JPEG, whose losses the figures see"] += signature(data[:16]) == "JPEG"
            pixels[number] = image.pixels
    for note, count in notes.items():
        if count:
            say(f"{path}: {count} of {counted(len(entries), 'image')}: {note}")
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
