"""`unstir import`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unstir.cli.app import app, show
from unstir.cli.options import FLAT


@FLAT
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What SOURCE may leave out; each has a usual value, which is printed."""

    size: int | None = None
    """Side of its images in pixels."""
    classes: tuple[str, ...] = ()
    """Names of its classes, in the order of their numbers, without a last label that means no class."""
    beta_1: float | None = None
    """First variance of the linear schedule."""
    beta_T: float | None = None  # noqa: N815
    """Last variance of the linear schedule."""


@app.command(name="import")
def import_(
    source: Annotated[str, Parameter(help="A folder, a checkpoint, or a model of the Hugging Face Hub: OWNER/NAME.")],
    /,
    *,
    out: Path,
    said: SourceOptions = SourceOptions(),
) -> int:
    """Make a run from a model of another program. Every command but `train` takes it; --train.init begins from it.

    The run has no data and no training. `evaluate`, `likelihood`, `report` and `doctor` compare it with the images of
    --store.

    Example: `unstir import google/ddpm-cifar10-32 --out runs/google`

    Example: `unstir import ckpt_199_.pt --out runs/report`

    Args:
        out: A new folder for the run.
    """
    from unstir.interop.foreign import Asked
    from unstir.interop.importing import import_run

    done = import_run(source, out, Asked(**asdict(said)))
    show(*done.lines)
    return 0
