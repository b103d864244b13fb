"""What may be wrong with a run: a list of questions, each put to what was read, drawn and measured of it once.

A finding has the figure that was measured, the threshold that it was held against and the setting that mends it. The
thresholds are explained, with what trained runs measure, in docs/doctor.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstir.doctor import average, data, files, learning, samples, setup
from unstir.doctor.admission import Progress, admit
from unstir.doctor.finding import SEVERITIES, Check, Finding, Severity
from unstir.doctor.patient import Patient

CHECKS: dict[str, Check] = {
    check.name: check
    for theme in (data.CHECKS, learning.CHECKS, average.CHECKS, samples.CHECKS, setup.CHECKS, files.CHECKS)
    for check in theme
}
"""Every check by its name."""


@dataclass(frozen=True)
class Report:
    """The findings, gravest first; the names of what was ``checked``; and why the rest was ``skipped``, by name.

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


def examine(patient: Patient) -> Report:
    """Put every question whose needs are met to ``patient``."""
    findings, checked, skipped = [], [], {}
    for name, check in CHECKS.items():
        if reasons := [reason for part in check.needs if (reason := patient.why_not(part))]:
            skipped[name] = reasons[0]
            continue
        checked.append(name)
        if finding := check.find(patient):
            findings.append(finding)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(tuple(findings), tuple(checked), skipped, setup.forecast(patient))


def diagnose(
    path: str | Path, *, store: str | Path | None = None, samples: bool = True, progress: Progress = lambda *_: None
) -> Report:
    """Read the run in folder ``path``, draw from it and examine it. Arguments and errors as `admit`."""
    return examine(admit(path, store=store, samples=samples, progress=progress))


__all__ = ["CHECKS", "SEVERITIES", "Check", "Finding", "Patient", "Report", "Severity", "admit", "diagnose", "examine"]
