"""What the checks of a run are given, what they find, and which finding explains which, so that a cause has one remedy.

`RunFacts` is a run as the checks see it: all that is read, drawn or measured, once, before the first check.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from unstir.data import Store
from unstir.doctor.image_stats import ImageStats
from unstir.doctor.numbers import Lines
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run

MISSING = {
    "lines": "no line in metrics.jsonl yet",
    "held_out": "no line in held_out.jsonl",
    "loaded": "no saved weights that are whole",
    "store": "the data is not there",
    "images": "the data is not there",
}
"""Why a part of the facts is None or empty. Samples and errors have several reasons: `RunFacts.unmeasured`."""

NO_SAMPLES = "left out by --no-samples"
"""The reason where nothing was to be drawn."""


@dataclass(frozen=True)
class SavedFile:
    """A checkpoint on disk: its step, its path, "full" or "slim", its size in bytes, and what is wrong with it."""

    step: int
    path: Path
    kind: str
    size: int
    problem: str = ""


def step_of(lines: Lines, files: Sequence[SavedFile]) -> int:
    """The step that a run stands at: the highest of its last logged line and its saved files that are whole."""
    logged: list[int] = [line["step"] for line in lines[-1:]]
    return max([*logged, *(file.step for file in files if not file.problem)], default=0)


@dataclass(frozen=True, eq=False)
class Samples:
    """Images drawn from a run, ``made`` uint8 [N, C, H, W] in 0..255, and ``real`` ones [M, C, H, W] to compare with.

    Where the network knows classes both have each class in the same proportion, so that a difference is no difference
    of classes. ``chain`` says in words how they were drawn.
    """

    made: Tensor
    real: Tensor
    chain: str


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors of training images, float64 [N], with the same times and noise, in evaluation mode.

    Of the ``raw`` weights and of the ``average``; None where the newest file has only one of them.
    """

    raw: Tensor | None
    average: Tensor | None


@dataclass(frozen=True)
class Needs:
    """Bytes of disk: ``disk`` are free where the run lies, ``files`` are those of checkpoints still to come."""

    disk: int
    files: int


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run and what is known of it. Parts that could not be had are None or empty; `why_not` gives the reason.

    ``settings_problem`` says that the weights are not of the run.
    ``lines`` are those of metrics.jsonl, ``held_out`` those of held_out.jsonl, ``files`` every checkpoint with what is
    wrong with it, ``loaded`` the newest that is whole. ``unmeasured`` says why
    there are no samples and errors.
    """

    run: Run
    lines: Lines
    files: tuple[SavedFile, ...]
    store: Store | None
    store_problem: str
    needs: Needs
    held_out: Lines = ()
    loaded: Checkpoint | None = None
    settings_problem: str = ""
    images: ImageStats | None = None
    samples: Samples | None = None
    errors: Errors | None = None
    unmeasured: str = ""

    @property
    def step(self) -> int:
        """The optimiser steps taken, according to metrics and files."""
        return step_of(self.lines, self.files)

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.run.length

    def why_not(self, part: str) -> str:
        """Why a part is None or empty; an empty string where it is there."""
        return MISSING.get(part, self.unmeasured) if getattr(self, part) in (None, ()) else ""


Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""From the most severe: the run is wrong or will fail; something is probably lost; worth knowing."""

OF_SAMPLES = ("brightness", "collapse")  # the end of most chains of causes
EXPLAINS: dict[str, tuple[str, ...]] = {
    "settings": ("store",),
    "store": OF_SAMPLES,
    "value-range": ("not-learned", *OF_SAMPLES),
    "copies": ("leak", "collapse", "overfit"),
    "classes": ("collapse",),
    "few-images": ("overfit",),
    "learning-rate": ("not-finite", "loss-rises", "not-learned", "still-falling", "average-behind", *OF_SAMPLES),
    "not-finite": ("loss-rises", "not-learned", "average-behind", *OF_SAMPLES),
    "loss-rises": ("not-learned", "average-behind", *OF_SAMPLES),
    "not-learned": ("still-falling", "average-behind", *OF_SAMPLES),
    "average-behind": OF_SAMPLES,
    "still-falling": OF_SAMPLES,
}
"""The findings that each finding explains where both are present; of several causes the first of this table counts."""


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
    """A question about a run. ``needs`` names the parts of `RunFacts` without which it is skipped.

    ``says`` is the sentence of its finding; a finding with a sentence of its own keeps that.
    """

    name: str
    says: str
    find: Callable[..., Iterator[Finding]]
    needs: tuple[str, ...]

    def run(self, facts: RunFacts) -> list[Finding]:
        """What is wrong: at most one finding. Every part of ``facts`` that the check needs must be there.

        Evidence and remedy are one line each, however the check wraps them.
        """
        found = self.find(facts, *(getattr(facts, part) for part in self.needs))
        own = [replace(each, check=self.name, says=each.says or self.says) for each in found]
        return [replace(each, evidence=_unwrapped(each.evidence), remedy=_unwrapped(each.remedy)) for each in own]


def _unwrapped(text: str) -> str:
    return re.sub(r"\n {8,}", " ", text)


def check(name: str, says: str = "") -> Callable[[Callable[..., Iterator[Finding]]], Check]:
    """Turn a generator of findings into a check; its parameters after the facts name the parts that it needs."""
    return lambda find: Check(name, says, find, tuple(inspect.signature(find).parameters)[1:])


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

    return [
        each if (cause := root(each.check)) == each.check else replace(each, because=cause, remedy=f"that of {cause}")
        for each in found
    ]


def by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of skipped checks by the reason that they share, from the reason of each."""
    return {why: [name for name, own in skipped.items() if own == why] for why in skipped.values()}


def causes(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Findings, as `explained` leaves them, by cause: the most severe first."""
    roots = [finding for finding in findings if not finding.because]
    made = [Cause(root, tuple(each for each in findings if each.because == root.check)) for root in roots]
    return tuple(sorted(made, key=lambda cause: SEVERITIES.index(cause.severity)))
