"""What may be wrong with a run: a list of checks, each of what was read, drawn and measured of it once.

A finding has the figure that was measured, the threshold that it was compared with and the setting that mends it. The
thresholds are explained, with what trained runs measure, in docs/doctor.md.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unstir.doctor import data, learning, samples, setup
from unstir.doctor.check import NO_SAMPLES, Cause, Check, Finding, RunFacts, by_reason, causes, explained
from unstir.doctor.gather import gather
from unstir.progress import counting

CHECKS: dict[str, Check] = {
    check.name: check
    for module in (data, learning, samples, setup)
    for check in vars(module).values()
    if isinstance(check, Check)
}
"""Every check by its name, in the order of definition."""

OF_TRAINING = frozenset(
    {"few-images", "overfit", "average-behind", "disk"}
    | {check.name for check in vars(learning).values() if isinstance(check, Check)}
)
"""The checks of how a run was trained, where it was trained here."""

OF_SINGLE_TIMES = frozenset({"not-learned", "learning-rate", "average-behind"})
"""The checks of errors at single times, of which a run that learns the ends of a teacher's paths has none."""


@dataclass(frozen=True)
class Report:
    """The findings, most severe first; the names of what was ``checked``; and why the rest was ``skipped``, by name.

    ``forecast`` has steps and seconds left, and the bytes of disk needed and there.
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
    reasons = {name: next(filter(None, map(facts.why_not, check.needs)), "") for name, check in CHECKS.items()}
    if not facts.run.config.kind.trained_here:
        reasons |= dict.fromkeys(OF_TRAINING, "the run was trained elsewhere")
    if facts.run.config.kind.has_teacher:
        reasons |= dict.fromkeys(OF_SINGLE_TIMES, "a run that learns from a teacher has no error of single times")
    skipped = {name: reason for name, reason in reasons.items() if reason}
    checked = tuple(name for name in CHECKS if name not in skipped)
    found = (finding for name in checked for finding in CHECKS[name].run(facts))
    if facts.run.config.kind.has_teacher:
        found = (replace(each, remedy=of_distill(each.remedy)) for each in found)
    findings = explained(found)
    return Report(tuple(findings), checked, skipped, setup.forecast(facts))


def of_distill(remedy: str) -> str:
    """A remedy whose options are those of `unstir distill`, where that has its own."""
    return re.sub(r"--train\.(lr|length)(?![\w.])", r"unstir distill --\1", remedy)


def diagnose(path: str | Path, *, store: str | Path | None = None, samples: bool = True) -> Report:
    """Read the run in folder ``path``, draw from it and examine it. Arguments and errors as `gather`."""
    with counting("examining", ""):
        return examine(gather(path, store=store, samples=samples))


__all__ = ["CHECKS", "NO_SAMPLES", "Cause", "Finding", "Report", "by_reason", "causes", "diagnose", "examine", "gather"]
