"""`unstir data pack` and `unstir data inspect`."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from unstir.cli.app import app, show

data = App(name="data", help="Pack images into one store, and show what a store holds.")
app.command(data)


@data.command
def pack(
    source: str,
    /,
    *,
    out: Path,
    size: int = 0,
    channels: Literal[1, 3] | None = None,
    held_out: float | None = None,
    sha256: str = "",
    license: str = "",
    strict: bool = False,
) -> int:
    """Check every image of a source and pack them into one store; run again after a kill, it gives the same bytes.

    Example: `unstir data pack my_images/ --out data/mine --size 32`

    Args:
        source: "mnist", "digits", "cifar10", a CIFAR-10 archive, or a folder, zip or tar of images, where subfolders
            name classes and train/ and test/, where there are both, are the split; a .npy, .npz, parquet or
            webdataset tar file or a folder of these; hf:OWNER/NAME of the Hugging Face Hub, or a folder that datasets
            saved.
        out: Folder of the store.
        size: Side in pixels that images are resized and centre-cropped to; 0: as they come, all alike.
        channels: 1 grey, 3 RGB; by default 1 for mnist and digits, 3 for all else.
        held_out: Fraction kept out of training, where the source has no split; by default 1/6 of digits, 1/10 of
            others.
        sha256: Expected SHA-256 of a source that is one file; for CIFAR-10 in place of the official ones.
        license: Licence of the data, recorded with it; by default what the source says, or unknown.
        strict: Fail if any file is refused.
    """
    from unstir.data import pack as pack_images
    from unstir.data.source import after_pack

    store = pack_images(
        source,
        out,
        size=size or None,
        channels=channels,
        held_out=held_out,
        sha256=sha256 or None,
        strict=strict,
        license=license,
        spelling=after_pack,
    )
    return inspect(store.path)


@data.command
def inspect(store: Path, /, *, sheet: Path | None = None) -> int:
    """Show what a store holds: counts, classes, what was refused and why, and a contact sheet.

    Example: `unstir data inspect data/digits`

    Args:
        store: Folder of the store.
        sheet: File of the contact sheet; by default STORE/contact-sheet.png. Only an earlier one is replaced.
    """
    from unstir.pictures import contact

    text, picture = contact.inspect(store, sheet)
    show(*text.splitlines(), f"contact sheet  {picture}")
    return 0
