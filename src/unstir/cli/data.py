"""`unstir data pack` and `unstir data inspect`."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from unstir.cli.app import app, show
from unstir.cli.options import OutFolder
from unstir.parts import Option

data = App(name="data", help="Pack images into one store, and show what a store holds.")
app.command(data)


@data.command
def pack(
    source: str,
    /,
    *,
    out: OutFolder,
    size: str = "",
    channels: int | None = None,
    depth: Literal["auto", "8", "float"] = "auto",
    scale: tuple[float, ...] = (),
    held_out: float | None = None,
    sha256: str = "",
    license: str = "",
    strict: bool = False,
    conditions: str = "",
    options: dict[str, Option] | None = None,
) -> int:
    """Check every image of a source and pack them into one store. The same command gives the same bytes.

    Example: `unstir data pack my_images/ --out data/mine --size 32`

    Args:
        source: "mnist", "digits", "cifar10" or its archive; a folder, zip or tar of images; a .npy, .npz, parquet or
            webdataset file or a folder of these; hf:OWNER/NAME of the Hugging Face Hub. Subfolders name classes;
            train/ and test/, if both exist, are the split. Or MODULE:NAME, a source of your own (docs/extend.md).
        out: Folder of the store.
        size: Side in pixels, or height and width as 24x40, to which images are resized and cropped at the centre; by
            default they keep their one common size.
        channels: 1 grey, 3 RGB; by default 1 for mnist and digits, all there are of floats and of other than 1, 3 or
            4, else 3.
        depth: 8: pixels 0..255. float: values as they are, in float32, where NaN is missing. auto: float for arrays of
            floating point that are not 8-bit levels.
        scale: For float: the values that become -1 and 1, one pair for all channels or a pair each; by default the
            range of the training images.
        held_out: Fraction kept out of training where the source has no split; by default 1/6 for digits, else 1/10.
        sha256: Expected SHA-256 of a source that is one file; for CIFAR-10 it replaces the official one.
        license: Licence of the data, recorded in the store; by default that of the source, or unknown.
        strict: Fail if any file is refused.
        conditions: File of numbers that describe each image of a folder, zip or tar: a .csv with the column file_name,
            or a .npy [N, K] in the order of their paths (img2 before img10).
        options: Arguments of a source MODULE:NAME, each by its name.
    """
    from unstir.data import pack as pack_images

    store = pack_images(
        source, out, size=size or None, channels=channels, held_out=held_out, sha256=sha256 or None, strict=strict,
        license=license, depth=depth, scale=scale, conditions=conditions, options=options or {},
    )  # fmt: skip
    return inspect(store.path)


@data.command
def inspect(store: Path, /, *, sheet: Path | None = None) -> int:
    """Show what a store holds: counts, classes, refused files with the reason, and a contact sheet.

    Example: `unstir data inspect data/digits`

    Args:
        store: Folder of the store.
        sheet: File of the contact sheet; by default STORE/contact-sheet.png. Only a contact sheet is replaced.
    """
    from unstir.pictures import contact

    text, picture = contact.inspect(store, sheet)
    show(*text.splitlines(), f"contact sheet  {picture}")
    return 0
