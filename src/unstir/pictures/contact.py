"""What a store holds, in words and as one picture."""

import itertools
from pathlib import Path

import torch
from PIL import Image
from rich.cells import cell_len

from unstir.data import SPLITS, Store
from unstir.data.levels import remarks
from unstir.data.manifest import read_origin
from unstir.errors import printable
from unstir.pictures.caption import of_class
from unstir.pictures.grid import check_png, contact_sheet, save_signed
from unstir.progress import counted

_COLUMNS = 12
_LISTED = 20


def inspect(path: Path, sheet: Path | None = None) -> tuple[str, Path]:
    """What the store in a folder holds, as `describe` says it, and the file of its contact sheet, written here.

    The file is ``sheet``, by default contact-sheet.png of the folder. Raises UserError where the store is damaged or
    the file is no PNG.
    """
    store = Store.open(path)
    store.verify()
    if sheet:
        check_png(sheet, "sheet")
    sheet = sheet or path / "contact-sheet.png"
    save_signed(contact(store), sheet)
    return describe(store), sheet


def describe(store: Store) -> str:
    """The counts by class (its number and name) and split, the oddities handled, and the files refused, as text."""
    channels, height, width = store.shape
    kind = "grey" if channels == 1 else "RGB"
    named = f", {counted(len(store.classes), 'class', 'classes')}" if store.classes else ", no classes"
    lines = [f"{printable(store.path)}: {height}x{width} {kind}{named}, content {store.content_hash[:12]}"]
    width_of_name = max(map(cell_len, (*store.classes, "all")))
    origin = read_origin(store.path)
    lines.append(f"from {printable(origin.source or 'unknown')}, licence {printable(origin.license or 'unknown')}")
    lines.append(f"{'':5}  {'':{width_of_name}}  {'train':>9}  {'held out':>9}")
    for index, name in enumerate(store.classes):
        counts = [store.manifest["counts_per_class"][split][index] for split in SPLITS]
        lines.append(f"{index:5}  {name}{' ' * (width_of_name - cell_len(name))}  {counts[0]:9}  {counts[1]:9}")
    lines.append(f"{'':5}  {'all':{width_of_name}}  {store.count('train'):9}  {store.count('held_out'):9}")
    lines += [f"note     {line}" for line in remarks(store)]
    lines += [f"refused  {path}: {reason}" for path, reason in store.refused[:_LISTED]]
    if (more := len(store.refused) - _LISTED) > 0:
        lines.append(f"refused  and {more} more, all in {printable(store.path / 'manifest.json')}")
    return "\n".join(lines)


def contact(store: Store) -> Image.Image:
    """Training images: the first few of each class a row, or the first of all without any."""
    images, labels = store.images("train"), store.labels("train")
    if labels is None:
        shown = max(1, min(len(images), 8 * _COLUMNS))  # a row without images where there are none
        rows = [("", images[i : i + _COLUMNS]) for i in range(0, shown, _COLUMNS)]
    else:
        of_each = [images[torch.nonzero(labels == number)[:_COLUMNS, 0]] for number in range(len(store.classes))]
        rows = list(zip(itertools.starmap(of_class, enumerate(store.classes)), of_each, strict=True))
    return contact_sheet(rows)
