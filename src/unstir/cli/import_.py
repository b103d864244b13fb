"""`unstir import`."""

from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter

from unstir.chain import FAST
from unstir.cli.app import app, show
from unstir.cli.options import FLAT
from unstir.interop.foreign import Asked


@app.command(name="import")
def import_(
    source: Annotated[str, Parameter(help="A folder, a checkpoint, or a model of the Hugging Face Hub: OWNER/NAME.")],
    /,
    *,
    out: Path,
    asked: Annotated[Asked, FLAT] = Asked(),
) -> int:
    """Make a run from a model of another program. Every command but `train` takes it; --train.init begins from it.

    The run has no data and no training. `evaluate`, `likelihood`, `report` and `doctor` compare it with the images of
    --store.

    Example: `unstir import google/ddpm-cifar10-32 --out runs/google`

    Example: `unstir import ckpt_199_.pt --out runs/report`

    Args:
        out: A new folder for the run.
    """
    from unstir.interop.importing import import_run

    done = import_run(source, out, asked)
    show(
        *done.lines, f"sample   unstir sample {quote(str(out))} --num 16 --sampler {FAST.sampler} --steps {FAST.steps}"
    )
    return 0
