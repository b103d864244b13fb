"""`unstir doctor`."""

import re
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from unstir.cli.app import app, show_json
from unstir.cli.options import RunFolder, StoreFolder
from unstir.errors import printable
from unstir.progress import counted, waiting

if TYPE_CHECKING:
    from unstir.insight.doctor import Report

STYLES = {"problem": "bold red", "warning": "yellow", "note": "dim"}


@app.command
def doctor(run: RunFolder, /, *, store: StoreFolder = None, samples: bool = True, json_: bool = False) -> int:
    """Examine a run, finished or in training: what is wrong, the measurement, and the setting that helps.

    It draws images, in seconds. The status is 1 for a problem, else 0; warnings and notes do not
    count.

    Example: `unstir doctor runs/mnist`

    Args:
        samples: Draw images; --no-samples is quicker and reads files, settings and metrics alone.
        json_: Print the findings as JSON.
    """
    from unstir.insight.doctor import diagnose

    report = diagnose(run, store=store, samples=samples)
    if json_:
        show_json({"healthy": report.healthy, **vars(report)})
    else:
        _print(report, str(run))
    return 0 if report.healthy else 1


def _print(report: "Report", run: str) -> None:
    from unstir.insight.findings import by_reason, causes

    screen = Console(file=sys.stdout, highlight=False)
    for cause in causes(report.findings):
        finding, style = cause.finding, STYLES[cause.severity]
        screen.print(Text.assemble((cause.severity, style), f"  {finding.check}: {printable(finding.says)}"))
        symptoms = [("explains", f"{each.check}: {each.says}; {each.evidence}") for each in cause.symptoms]
        for label, text in (("measured", finding.evidence), *symptoms, ("remedy", finding.remedy)):
            row = Text.assemble((f"{label:10}", "dim"), printable(_typed(text, run)))
            screen.print(Padding(row, (0, 0, 1 if label == "remedy" else 0, 3)))
    if not report.findings:
        screen.print("nothing found")
    screen.print(Text.assemble(("checked   ", "dim"), ", ".join(report.checked)))
    if report.skipped:
        listed = "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason(report.skipped).items())
        screen.print(Text.assemble(("skipped   ", "dim"), _typed(listed, run)))
    screen.print(Text.assemble(("forecast  ", "dim"), _forecast(report)))


def _typed(text: str, run: str) -> str:
    from unstir.insight.wording import typed

    return re.sub(r"`([^`]+)`", lambda code: typed(code[1], run), text)


def _forecast(report: "Report") -> str:
    left, seconds = report.forecast["steps_left"], report.forecast["seconds_left"]
    how_long = "at a speed that is not known yet" if seconds is None else waiting(seconds)
    return f"{counted(left, 'step')} left, {how_long}" if left else "finished"
