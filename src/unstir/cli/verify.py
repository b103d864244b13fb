"""`unstir verify`."""

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unstir.cli.app import app, show, show_json
from unstir.errors import UserError

if TYPE_CHECKING:
    from unstir.verify import Row

_NARROWEST = 72  # columns; narrower, a terminal had better wrap the lines than a table shorten its figures


@app.command
def verify(*names: str, json_: bool = False, plot: Path | None = None, image: Path | None = None) -> int:
    """Check the equations of the theory in seconds: what each is compared with, and its error.

    The status is 0 if all hold, else 1.

    Example: `unstir verify posterior-bayes sampling --plot theory.png`

    Args:
        names: Rows, or the themes forward, reverse, bound, sampling and oracles; by default all rows.
        json_: Print the rows as JSON.
        plot: File of a picture (.png): the schedules, the posterior's coefficients, and an image dissolving into noise.
            Only a picture by unstir is replaced.
        image: The image that dissolves, cropped to its centre square at 64 x 64; by default a handwritten digit.
    """
    from unstir.pictures.grid import check_png
    from unstir.pictures.theory import save_theory
    from unstir.runs.files import replacing
    from unstir.verify import choose
    from unstir.verify import verify as run_checks

    choose(names)  # refuses unknown ones
    if plot:
        check_png(plot, "plot")
        with replacing(plot) as partial:
            save_theory(partial, image)
    elif image:
        raise UserError("image", image, "is drawn in the picture of --plot FILE", "give both, or leave it out")
    rows = run_checks(names)
    holding = sum(row.passed for row in rows)
    if json_:
        show_json({"passed": holding == len(rows), "rows": [vars(row) | {"passed": row.passed} for row in rows]})
    else:
        screen = Console(file=sys.stdout)
        screen.width = max(screen.width, _NARROWEST)
        screen.print(_table(rows))
        show(*([f"picture  {plot}"] if plot else []), f"{holding} of {len(rows)} hold")
    return 0 if holding == len(rows) else 1


def _table(rows: Sequence["Row"]) -> Table:
    """One row per equation, by theme; texts are not markup, for papers write x_0 in brackets of every kind."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("equation", no_wrap=True)
    table.add_column(Text("what holds [source], and what was compared"), ratio=1, overflow="fold")
    for heading in ("error", "at most", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for theme, members in groupby(rows, key=lambda row: row.theme):
        table.add_row()
        table.add_row(Text(theme.upper(), style="bold"))
        for row in members:
            error, limit = "-" if row.failure else f"{row.error:.1e}", f"{row.tolerance:.0e}"
            answer = Text("holds", style="green") if row.passed else Text("FAILS", style="bold red")
            table.add_row(Text(row.name), _described(row), error, limit, answer)
    return table


def _described(row: "Row") -> Group:
    """What holds and its source; below, indented, what was compared, and why it failed where it did."""
    holds = Text.assemble(row.statement, (f" [{row.source}]", "italic"), overflow="fold")
    compared = Padding(Text(row.compared, "dim", overflow="fold"), (0, 0, 0, 3))
    return Group(holds, compared, *([Text(f"failed: {row.failure}", "red")] if row.failure else []))
