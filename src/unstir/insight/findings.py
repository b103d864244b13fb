"""What a check is, what it finds, and which finding explains which, so that a cause has one remedy."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from unstir.insight.facts import Facts

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""From the most severe: the run is wrong or will fail; something is probably lost; worth knowing."""

OF_SAMPLES = ("brightness", "collapse")  # the end of most chains of causes
EXPLAINS: dict[str, tuple[str, ...]] = {
    "store": OF_SAMPLES,
    "value-range": ("not-learned",),
    "copies": ("leak", "collapse", "overfit"),
    "classes": ("collapse",),
    "not-finite": ("weights-finite", "loss-rises"),
    "weights-finite": OF_SAMPLES,
    "loss-rises": ("not-learned",),
    "not-learned": ("still-falling",),
    "still-falling": OF_SAMPLES,
}
"""What each finding explains, and with it all that these explain; the first cause that is present counts."""


@dataclass(frozen=True)
class Finding:
    """One fault: ``says`` what it is, in a sentence; ``evidence`` what was measured; ``remedy`` what to do.

    ``check`` is the name of the check that found it; it and ``says`` are filled in by `Check.run`. ``figure`` is what
    was measured and ``threshold`` what it was compared with, in the unit that the evidence names. ``because`` names the
    finding that explains this one, whose remedy mends both; "" where none does.
    """

    check: str = field(default="", kw_only=True)
    severity: Severity
    says: str = field(default="", kw_only=True)
    evidence: str
    remedy: str
    figure: float
    threshold: float
    because: str = ""


@dataclass(frozen=True)
class Check:
    """A question about a run. ``needs`` names the parts of `Facts` without which it is skipped.

    ``says`` is the sentence of its finding; a finding with a sentence of its own keeps that. A check ``of_training``
    asks nothing of an imported run, which was trained elsewhere, and one of ``single_times`` nothing of a distilled
    run, which learns paths.
    """

    name: str
    says: str
    find: Callable[..., Iterator[Finding]]
    needs: tuple[str, ...]
    of_training: bool
    single_times: bool

    def run(self, facts: Facts) -> list[Finding]:
        """What is wrong: at most one finding. Every part of ``facts`` that the check needs must be there."""
        findings = self.find(facts, *(getattr(facts, part) for part in self.needs))
        return [replace(it, check=self.name, says=it.says or self.says) for it in findings]


def check(
    name: str, says: str = "", *, of_training: bool = False, single_times: bool = False
) -> Callable[[Callable[..., Iterator[Finding]]], Check]:
    """Turn a generator of findings into a check; its parameters after the facts name the parts that it needs."""

    def made(find: Callable[..., Iterator[Finding]]) -> Check:
        return Check(name, says, find, tuple(inspect.signature(find).parameters)[1:], of_training, single_times)

    return made


@dataclass(frozen=True)
class Cause:
    """A finding that no other explains, and the ``symptoms`` that it does explain."""

    finding: Finding
    symptoms: tuple[Finding, ...] = ()

    @property
    def severity(self) -> Severity:
        """The most severe of the cause and its symptoms."""
        return min((result.severity for result in (self.finding, *self.symptoms)), key=SEVERITIES.index)


def explained(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, most severe first, each symptom with its root cause, which is no note, as ``because``."""
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    able = {finding.check for finding in ordered if finding.severity != "note"}
    roots = {symptom: cause for cause in reversed(EXPLAINS) if cause in able for symptom in _explained_by(cause)}
    return [
        replace(finding, because=cause, remedy=f"that of {cause}") if (cause := roots.get(finding.check)) else finding
        for finding in ordered
    ]


def _explained_by(cause: str) -> set[str]:
    direct = EXPLAINS.get(cause, ())
    return {*direct, *(symptom for name in direct for symptom in _explained_by(name))}


def causes(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Findings, as `explained` leaves them, by cause: the most severe first."""
    by_cause = [
        Cause(root, tuple(finding for finding in findings if finding.because == root.check))
        for root in findings
        if not root.because
    ]
    return tuple(sorted(by_cause, key=lambda cause: SEVERITIES.index(cause.severity)))


def by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of skipped checks by the reason that they share, from the reason of each."""
    return {why: [name for name, reason in skipped.items() if reason == why] for why in skipped.values()}
