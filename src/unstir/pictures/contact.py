"""What a store holds, in words and as one picture."""

import itertools
from pathlib import Path

import torch
from PIL import Image
from rich.cells import cell_len

from unstir.data import SPLITS, Store
from unstir.data.disk import read_bytes
from unstir.data.manifest import read_origin
from unstir.data.packing import remarks
from unstir.errors import UserError, printable
from unstir.pictures.grid import SIGNATURE, SIGNED, contact_sheet, of_class, titled, with_words
from unstir.pixels import pictured
from unstir.progress import counted
from unstir.randomness import Order

_COLUMNS = 12
_LISTED = 20


def inspect(path: Path, sheet: Path | None = None) -> tuple[str, Path]:
    """What a store holds in words, and the ``sheet`` written, by default contact-sheet.png there. Raises UserError."""
    store = Store.open(path)
    store.verify()
    sheet = sheet or path / "contact-sheet.png"
    if sheet.suffix.lower() != ".png":
        raise UserError("sheet", sheet, "must end in .png")
    if sheet.exists() and SIGNATURE not in read_bytes(sheet):
        raise UserError("sheet", sheet, "exists and was not drawn by unstir", "delete it, or name another file")
    contact(store).save(sheet, format="png", pnginfo=with_words(**SIGNED))
    return describe(store), sheet


def describe(store: Store) -> str:
    """The counts by class (its number and name) and split, the oddities handled, and the files refused, as text."""
    named = f", {counted(len(store.classes), 'class', 'classes')}" if store.classes else ", no classes"
    lines = [f"{printable(store.path)}: {pictured(store.shape, store.scale)}{named}, content {store.content_hash[:12]}"]
    width_of_name = max(map(cell_len, (*store.classes, "all")))
    origin = read_origin(store.path)
    lines.append(f"from {printable(origin.source or 'unknown')}, licence {printable(origin.license or 'unknown')}")
    lines.append(f"{'':5}  {'':{width_of_name}}  {'train':>9}  {'held out':>9}")
    for index, name in enumerate(store.classes):
        counts = [store.manifest["counts_per_class"][split][index] for split in SPLITS]
        lines.append(f"{index:5}  {name}{' ' * (width_of_name - cell_len(name))}  {counts[0]:9}  {counts[1]:9}")
    lines.append(f"{'':5}  {'all':{width_of_name}}  {store.count('train'):9}  {store.count('held_out'):9}")
    if (rows := store.conditions("train")) is not None and len(rows):
        ends = zip(*(of((0, *range(2, rows.ndim))).tolist() for of in (rows.amin, rows.amax)), strict=True)
        listed = ", ".join(f"{low:.4g}..{high:.4g}" for low, high in ends)
        kind = "numbers" if rows.ndim == 2 else "channels"
        lines.append(f"conditions  {kind} of each image, those of training in {listed}")
    lines += [f"note     {line}" for line in remarks(store)]
    lines += [f"refused  {path}: {reason}" for path, reason in store.refused[:_LISTED]]
    if (more := len(store.refused) - _LISTED) > 0:
        lines.append(f"refused  and {more} more, all in {printable(store.path / 'manifest.json')}")
    return "\n".join(lines)


def contact(store: Store) -> Image.Image:
    """Training images chosen at random, the same each time: some of each class a row, or of all without any."""
    images, labels, scale = store.images("train"), store.labels("train"), store.scale
    if labels is None:
        shown = _chosen(torch.arange(len(images)), 8 * _COLUMNS)
        rows = [("", scale.shown(images[shown[i : i + _COLUMNS]])) for i in range(0, max(1, len(shown)), _COLUMNS)]
    else:
        names = itertools.starmap(of_class, enumerate(store.classes))
        places = [_chosen(torch.nonzero(labels == number)[:, 0], _COLUMNS) for number in range(len(store.classes))]
        rows = [(name, scale.shown(images[of_name])) for name, of_name in zip(names, places, strict=True)]
    title = f"{sum(len(of_row) for _, of_row in rows)} of {counted(len(images), 'training image')}, chosen at random"
    return titled(contact_sheet(rows), title)


def _chosen(places: torch.Tensor, most: int) -> torch.Tensor:
    return places[Order(0, "contact sheet", 0, len(places))[:most]].sort().values
