"""`unstir verify`."""

from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

from unstir.cli.app import app, show_result

if TYPE_CHECKING:
    from unstir.verify import Row

_WIDTH = 80  # columns of the printed lines


@app.command
def verify(*names: str, json_: bool = False) -> int:
    """Check the equations of the theory in seconds.

    The summary names all of them. Those that you name, and those that fail, are shown with what each compares and its
    error. The status is 0 if all hold, else 1.

    Example: `unstir verify posterior-bayes sampling`

    Args:
        names: Equations, or the themes forward, reverse, bound, sampling and oracles; by default all of them.
        json_: Print the rows as JSON.
    """
    from unstir.verify import verify as run_checks

    rows = run_checks(names)
    passed = all(row.passed for row in rows)
    value = {"passed": passed, "rows": [vars(row) | {"passed": row.passed} for row in rows]}
    show_result(value, json_, *_lines(rows, names))
    return 0 if passed else 1


def _lines(rows: Sequence["Row"], names: Sequence[str]) -> list[str]:
    """The summary by theme, and what those that are named or fail compare and by how much they are missed."""
    lines = [f"{sum(row.passed for row in rows)} of {len(rows)} hold"]
    for theme, members in groupby(rows, key=lambda row: row.theme):
        passed = {row.name: row.passed for row in members}
        listed = f"{theme:8} {sum(passed.values())} of {len(passed)}  {', '.join(passed)}"
        lines += wrap(listed, _WIDTH, break_on_hyphens=False, subsequent_indent=" " * 9)
    for row in rows:
        if names or not row.passed:
            error, answer = "-" if row.failure else f"{row.error:.1e}", "holds" if row.passed else "FAILS"
            lines += ["", f"{row.name:22}{error:>8}, at most {row.tolerance:.0e}  {answer}"]
            texts = [f"{row.statement} [{row.source}]", f"compared: {row.compared}"]
            for text in [*texts, *([f"failed: {row.failure}"] if row.failure else [])]:
                lines += wrap(text, _WIDTH, initial_indent="   ", subsequent_indent="   ")
    return lines
