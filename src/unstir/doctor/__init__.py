"""What may be wrong with a run: a list of checks, each of what was read, drawn and measured of it once.

A finding has the figure that was measured, the threshold that it was compared with and the setting that mends it. The
thresholds are explained, with what trained runs measure, in docs/doctor.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstir.doctor import average, data, files, learning, rate, samples, setup
from unstir.doctor.causes import Cause, causes, explained
from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Check, Finding
from unstir.doctor.gather import Progress, gather

CHECKS: dict[str, Check] = {
    check.name: check
    for module in (data, learning, rate, average, samples, setup, files)
    for check in vars(module).values()
    if isinstance(check, Check)
}
"""Every check by its name, in the order of definition."""


@dataclass(frozen=True)
class Report:
    """The findings, most severe first; the names of what was ``checked``; and why the rest was ``skipped``, by name.

    ``forecast`` has steps and seconds left, and the bytes of memory and disk needed and there.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    skipped: dict[str, str]
    forecast: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """Whether nothing found is a problem."""
        return all(finding.severity != "problem" for finding in self.findings)


def examine(facts: RunFacts) -> Report:
    """Run every check whose needs are met."""
    findings, checked, skipped = [], [], {}
    for name, check in CHECKS.items():
        if reason := next(filter(None, map(facts.why_not, check.needs)), ""):
            skipped[name] = reason
            continue
        checked.append(name)
        findings += check.run(facts)
    return Report(tuple(explained(findings)), tuple(checked), skipped, setup.forecast(facts))


def diagnose(
    path: str | Path, *, store: str | Path | None = None, samples: bool = True, progress: Progress = lambda *_: None
) -> Report:
    """Read the run in folder ``path``, draw from it and examine it. Arguments and errors as `gather`."""
    return examine(gather(path, store=store, samples=samples, progress=progress))


__all__ = ["CHECKS", "Cause", "Finding", "Report", "causes", "diagnose", "examine", "gather"]
