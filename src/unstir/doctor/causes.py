"""Which finding explains which others, so that one cause is stated once and has one remedy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from unstir.doctor.finding import SEVERITIES, Finding, Severity

OF_SAMPLES = ("brightness", "tint", "saturation", "collapse", "emptiness", "noise")
"""The checks of samples: the end of most chains of causes."""

EXPLAINS: dict[str, tuple[str, ...]] = {
    "settings": ("store", "weights-loss"),
    "store": ("weights-loss", *OF_SAMPLES),
    "weights-finite": ("weights-loss", "average-behind", *OF_SAMPLES),
    "value-range": ("not-learned", "first-loss", *OF_SAMPLES),
    "flat-images": ("emptiness", "collapse"),
    "copies": ("leak", "near-copies", "collapse", "overfit"),
    "near-copies": ("leak", "collapse", "overfit"),
    "classes": ("collapse",),
    "few-images": ("overfit",),
    "learning-rate": (
        *("not-finite", "first-loss", "loss-rises", "loss-spikes", "unclipped", "clipping"),
        *("not-learned", "still-falling", "average-behind", "weights-loss", *OF_SAMPLES),
    ),
    "not-finite": ("first-loss", "loss-rises", "loss-spikes", "unclipped", "not-learned", *OF_SAMPLES),
    "first-loss": ("loss-rises", "loss-spikes", "not-learned", *OF_SAMPLES),
    "loss-rises": ("loss-spikes", "unclipped", "not-learned", "average-behind", *OF_SAMPLES),
    "loss-spikes": ("unclipped",),
    "rate-plan": ("not-learned", "still-falling", *OF_SAMPLES),
    "slow-average": ("average-behind", *OF_SAMPLES),
    "signal-left": OF_SAMPLES,
    "not-learned": ("still-falling", "average-behind", *OF_SAMPLES),
    "average-behind": OF_SAMPLES,
    "still-falling": OF_SAMPLES,
}
"""The findings that each finding explains where both are present; of several causes the first of this table counts."""


@dataclass(frozen=True)
class Cause:
    """A finding that no other explains, and the ``symptoms`` that it does explain."""

    finding: Finding
    symptoms: tuple[Finding, ...] = ()

    @property
    def severity(self) -> Severity:
        """The most severe of the cause and its symptoms."""
        return min((each.severity for each in (self.finding, *self.symptoms)), key=SEVERITIES.index)


def explained(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, most severe first, each symptom with its root cause as ``because`` and no remedy of its own.

    A note explains nothing: what is harmless by itself is not the cause of a fault.
    """
    found = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    able = {finding.check for finding in found if finding.severity != "note"}

    def root(check: str) -> str:
        cause = next((name for name, of in EXPLAINS.items() if name in able and check in of), None)
        return check if cause is None else root(cause)

    roots = [root(finding.check) for finding in found]
    return [
        each if cause == each.check else replace(each, because=cause, remedy=f"that of {cause}")
        for each, cause in zip(found, roots, strict=True)
    ]


def causes(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Findings, as `explained` leaves them, by cause: the most severe first."""
    made = [
        Cause(finding, tuple(each for each in findings if each.because == finding.check))
        for finding in findings
        if not finding.because
    ]
    return tuple(sorted(made, key=lambda cause: SEVERITIES.index(cause.severity)))
