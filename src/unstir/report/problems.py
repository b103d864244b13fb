"""What is wrong with a run, for the head of its page: the doctor's problems, one entry a cause."""

import re
from dataclasses import dataclass

from unstir.doctor import Cause, Severity, causes
from unstir.report.facts import Facts

_OPTION = re.compile(r'--[a-z][\w-]*(?:\.\w+)*(?: (?:"[^"]+"|\d[\w.+-]*\w|\d|cosine|auto|v|dpmpp_2m))*')


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A cause of trouble: ``says`` what is wrong in a sentence, ``evidence`` what was measured, ``remedy`` what to do.

    ``check`` is the name of the doctor's check. ``symptoms`` are sentences on what else this cause explains, with what
    was measured of each; they have no remedy of their own. ``severity`` is the worst of the cause and its symptoms.
    All texts are plain, options in backticks, and end with a full stop; the figure that shows them is "doctor".
    """

    check: str
    severity: Severity
    says: str
    evidence: str
    remedy: str
    symptoms: tuple[str, ...] = ()


def problems(facts: Facts) -> tuple[Problem, ...]:
    """The causes of which a problem comes, most severe first; empty for a run that is well."""
    return tuple(problem for problem in found(facts) if problem.severity == "problem")


def found(facts: Facts) -> tuple[Problem, ...]:
    """All that the doctor found, by cause: problems, then warnings, then notes."""
    return tuple(_problem(cause) for cause in causes(facts.findings))


def _problem(cause: Cause) -> Problem:
    of = cause.finding
    symptoms = tuple(f"{_sentence(each.says)} {_sentence(each.evidence)}" for each in cause.symptoms)
    return Problem(
        check=of.check,
        severity=cause.severity,
        says=_sentence(of.says),
        evidence=_sentence(of.evidence),
        remedy=_sentence(of.remedy),
        symptoms=symptoms,
    )


def _sentence(text: str) -> str:
    """A clause with a capital and a full stop; a setting or a symbol such as x_T at its head keeps its case."""
    shown = coded(text).rstrip(".")
    first = shown.partition(" ")[0]
    return f"{shown}." if set(first) & set("_.=") else f"{shown[:1].upper()}{shown[1:]}."


def coded(text: str) -> str:
    """A finding's text with its options, and values that belong to them, in backticks."""
    return _OPTION.sub(lambda option: f"`{option[0]}`", text)
