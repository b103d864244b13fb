"""What a check of a run finds, and what a check is."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor

from unstir.doctor.facts import RunFacts
from unstir.runs import kinds
from unstir.significance import Effect, counted, two_sample

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""From the most severe: the run is wrong or will fail; something is probably lost; worth knowing."""


@dataclass(frozen=True)
class Finding:
    """One thing that is amiss: ``says`` what, in a sentence; ``evidence`` what was measured; ``remedy`` what to do.

    ``figure`` is what was measured and ``threshold`` what it was held against, in the unit that the evidence names.
    ``because`` names the finding that explains this one, whose remedy mends both; "" where none does.
    """

    check: str
    severity: Severity
    says: str
    evidence: str
    remedy: str
    figure: float
    threshold: float
    because: str = ""


@dataclass(frozen=True)
class Check:
    """A question put to a run. ``needs`` names the parts of the `RunFacts` without which it cannot be asked."""

    name: str
    subject: str
    find: Callable[[RunFacts], Finding | None]
    needs: tuple[str, ...] = ()


def compared(real: Tensor, made: Tensor, choices: int = 1) -> Effect:
    """The mean of ``made`` [N] less that of ``real`` [M]: Welch's t, or a count where neither set varies at all."""
    found = two_sample(real.tolist(), made.tolist(), choices)
    return found if found.error else counted(found.value)


def median(values: list[float]) -> float:
    """The median; NaN of nothing."""
    return torch.tensor(values, dtype=torch.float64).median().item() if values else math.nan


def short(value: float) -> str:
    """A figure worth one digit, as a setting is written: 0.0003, 20."""
    return f"{float(f'{value:.1g}'):g}"


LARGEST = 1e60
"""A larger value of a log is none: of Welch's test, which takes fourth powers, a float holds too little."""


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a log is a number that can be computed with: finite, and not beyond `LARGEST`."""
    return kinds.is_number(value) and abs(value) <= LARGEST


MOST_TIMES = 1000
"""A larger ratio says no more: "more than 1,000 times"."""


def times(ratio: float) -> str:
    """A ratio as it is read: "1.25 times", "48 times", "more than 1,000 times"."""
    if not ratio <= MOST_TIMES:
        return f"more than {MOST_TIMES:,} times"
    return f"{ratio:.2f} times" if ratio < 10 else f"{ratio:,.0f} times"
