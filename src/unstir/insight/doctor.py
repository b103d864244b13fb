"""What may be wrong with a run: the table of checks; docs/doctor.md explains their thresholds."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unstir.insight import checks_data, checks_run
from unstir.insight.facts import Facts
from unstir.insight.findings import Check, Finding, explained
from unstir.insight.gather import gather
from unstir.progress import counting

CHECKS: dict[str, Check] = {
    check.name: check
    for module in (checks_data, checks_run)
    for check in vars(module).values()
    if isinstance(check, Check)
}


@dataclass(frozen=True)
class Report:
    """The findings, names ``checked``, why others were ``skipped``, and in ``forecast`` steps and seconds left."""

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    skipped: dict[str, str]
    forecast: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """Whether nothing found is a problem."""
        return all(finding.severity != "problem" for finding in self.findings)


def diagnose(path: str | Path, *, store: str | Path | None = None, samples: bool = True) -> Report:
    """Read the run in folder ``path``, draw from it and examine it. Arguments and errors as `gather`."""
    with counting("examining", ""):
        return examine(gather(path, store=store, samples=samples))


def examine(facts: Facts) -> Report:
    """Run every check whose needs are met."""
    reasons = {name: _why_not(check, facts) for name, check in CHECKS.items()}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    checked = tuple(name for name in CHECKS if name not in skipped)
    findings = [finding for name in checked for finding in CHECKS[name].run(facts)]
    if facts.config.kind.has_teacher:
        findings = [replace(it, remedy=re.sub(r"`train\.(lr|length)=", r"`\1=", it.remedy)) for it in findings]
    return Report(tuple(explained(findings)), checked, skipped, checks_run.forecast(facts))


def _why_not(check: Check, facts: Facts) -> str:
    """Why a check cannot be made of a run of this kind, or of what is there; an empty string where it can."""
    if not facts.config.kind.trained_here and check.of_training:
        return "the run was imported, and trained elsewhere"
    if facts.config.kind.has_teacher and check.single_times:
        return "a distilled run has no error of single times"
    return next(filter(None, map(facts.why_not, check.needs)), "")
