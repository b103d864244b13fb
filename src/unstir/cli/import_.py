"""`unstir import`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unstir.cli.app import app, show


@app.command(name="import")
def import_(
    source: Annotated[str, Parameter(help="A folder, or a model of the Hugging Face Hub: OWNER/NAME.")],
    /,
    *,
    out: Path,
    size: int | None = None,
    classes: tuple[str, ...] = (),
) -> int:
    """Make a run from a model of another program. Every command takes it but `train`, which begins from it.

    It says where it came from, and has no data and no training of its own: `evaluate`, `likelihood`, `report` and
    `doctor` compare it with the images named by --store.

    Example: `unstir import google/ddpm-cifar10-32 --out runs/google`

    Args:
        out: A new folder for the run.
        size: Side of its images in pixels, where SOURCE does not say it.
        classes: Names of its classes, in the order of their numbers; one less than it has labels where the last says
            nothing.
    """
    from unstir.interop.foreign import Asked
    from unstir.interop.importing import import_run

    done = import_run(source, out, Asked(size=size, classes=classes))
    show(*done.lines)
    return 0
