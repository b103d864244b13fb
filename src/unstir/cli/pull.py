"""`unstir pull`."""

from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter

from unstir.cli.app import app, show


@app.command
def pull(
    name: Annotated[str, Parameter(help="Name of the model on the Hub: OWNER/NAME, or OWNER/NAME@REVISION.")],
    /,
    *,
    out: Path | None = None,
) -> int:
    """Make a run of a model that `unstir push` published. Files fetched before are read without a network.

    The run samples, evaluates and exports as where it was trained, and has its figures. It cannot be continued.

    Example: `unstir pull me/ddpm-digits`

    Args:
        out: A new folder for the run; by default runs/NAME.
    """
    from unstir.interop.published import pull as fetch_run

    made = fetch_run(name, out)
    show(*made.lines, f"sample   unstir sample {quote(str(made.run.path))} --num 16")
    return 0
