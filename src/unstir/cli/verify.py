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
    """Check the equations of the theory in seconds.

    The summary names all of them. Those that you name, and those that fail, are shown with what each compares and its
    error. The status is 0 if all hold, else 1.

    Example: `unstir verify posterior-bayes sampling --plot theory.png`

    Args:
        names: Equations, or the themes forward, reverse, bound, sampling and oracles; by default all of them.
        json_: Print the rows as JSON.
        plot: File of a picture (.png, .svg or .pdf): the schedules, the posterior's coefficients, and an image
            dissolving into noise. Only a picture by unstir is replaced.
        image: The image that dissolves, cropped to its centre square at 64 x 64; by default a handwritten digit.
    """
    from unstir.pictures.charts import SUFFIXES, save_figure
    from unstir.pictures.grid import check_signed
    from unstir.pictures.theory import theory_figure
    from unstir.runs.files import replacing
    from unstir.verify import choose
    from unstir.verify import verify as run_checks

    choose(names)  # refuses unknown ones
    if plot:
        check_signed(plot, "plot", SUFFIXES)
        with replacing(plot) as partial:
            save_figure(theory_figure(image), partial, plot.suffix[1:].lower())
    elif image:
        raise UserError("image", image, "is drawn in the picture of --plot FILE", "give both, or leave it out")
    rows = run_checks(names)
    holding = sum(row.passed for row in rows)
    if json_:
        show_json({"passed": holding == len(rows), "rows": [vars(row) | {"passed": row.passed} for row in rows]})
    else:
        screen = Console(file=sys.stdout)
        screen.width = max(screen.width, _NARROWEST)
        screen.print(f"{holding} of {len(rows)} hold", _summary(rows, names))
        show(*([f"picture  {plot}"] if plot else []))
    return 0 if holding == len(rows) else 1


def _summary(rows: Sequence["Row"], names: Sequence[str]) -> Group:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for theme, members in groupby(rows, key=lambda row: row.theme):
        passed = {row.name: row.passed for row in members}
        table.add_row(theme, f"{sum(passed.values())} of {len(passed)}", ", ".join(passed))
    shown = [row for row in rows if names or not row.passed]
    return Group(table, *(("", _table(shown)) if shown else ()))


def _table(rows: Sequence["Row"]) -> Table:
    """One row per equation; texts are not markup, for papers write x_0 in brackets of every kind."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("equation", no_wrap=True)
    table.add_column(Text("what holds [source], and what was compared"), ratio=1, overflow="fold")
    for heading in ("error", "at most", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        error, limit = "-" if row.failure else f"{row.error:.1e}", f"{row.tolerance:.0e}"
        answer = Text("holds", style="green") if row.passed else Text("FAILS", style="bold red")
        holds = Text.assemble(row.statement, (f" [{row.source}]", "italic"), overflow="fold")
        compared = Padding(Text(row.compared, "dim", overflow="fold"), (0, 0, 0, 3))
        failed = [Text(f"failed: {row.failure}", "red")] if row.failure else []
        table.add_row(Text(row.name), Group(holds, compared, *failed), error, limit, answer)
    return table
