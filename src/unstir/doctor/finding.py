"""What a check of a run is, and what it finds."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from unstir.doctor.facts import RunFacts
from unstir.significance import Effect, counted, two_sample

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""From the most severe: the run is wrong or will fail; something is probably lost; worth knowing."""


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
        """What is wrong: at most one finding. Every part of ``facts`` that the check needs must be there."""
        found = self.find(facts, *(getattr(facts, part) for part in self.needs))
        return [replace(each, check=self.name, says=each.says or self.says) for each in found]


def check(name: str, says: str = "") -> Callable[[Callable[..., Iterator[Finding]]], Check]:
    """Turn a generator of findings into a check; its parameters after the facts name the parts that it needs."""
    return lambda find: Check(name, says, find, tuple(inspect.signature(find).parameters)[1:])


def compared(real: Tensor, made: Tensor, choices: int = 1) -> Effect:
    """The mean of ``made`` [N] less that of ``real`` [M]: Welch's t, or a count where neither set varies at all."""
    found = two_sample(real.tolist(), made.tolist(), choices)
    return found if found.error else counted(found.value)
