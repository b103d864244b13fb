"""A sentence of the analysis, what it may rest on, and numbers as a careful person writes them, with their unit."""

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from unstir.metrics.figures import Figure
from unstir.significance import LEVEL, Effect, with_error

Topic = Literal["progress", "quality", "fit", "diversity", "memorisation", "sampling", "next"]
TITLES: dict[Topic, str] = {
    "progress": "What improved, and when",
    "quality": "How good it is",
    "fit": "Over- or under-fitting",
    "diversity": "Diversity",
    "memorisation": "Memorisation",
    "sampling": "Sampling",
    "next": "What to try next",
}

Shown = Literal["losses", "quality", "calls", "neighbours", "doctor"]
POINTERS: dict[Shown, str] = {
    "losses": "the losses",
    "quality": "the figures",
    "calls": "the plot of calls",
    "neighbours": "the nearest images",
    "doctor": "the doctor's findings",
}
"""The figures of the page that a sentence may point to, and what it calls them."""

Verdict = Literal["good", "bad", "neutral", "undecided", "missing"]
MARKS: dict[str, Verdict] = {"better": "good", "worse": "bad", "undecided": "undecided"}
"""The verdict on a figure of which `unstir.metrics.figures.verdict` says this."""

MULTIPLICITY = (
    f"What is stated is larger than {LEVEL:g} of its standard errors: of twenty effects, chance makes one on fewer "
    "than one page in a hundred. What is smaller is undecided. Errors (±) are one standard error, those of differences "
    "widened where only a few seeds tell them."
)


@dataclass(frozen=True)
class Statement:
    """One or two sentences about a run.

    ``name`` is what the statement is about in short, "last stretch" or "gap": at most one of a name is in an analysis,
    and advice refers to it. ``figure`` is the id of the figure that shows it. ``text`` is plain, commands in backticks.
    "good" and "bad" need a decided effect, "neutral" a decided one or none (plain counts), and "undecided" has none
    that is decided. Of "missing" the text is a noun phrase: what was not measured, and the command that measures it.
    Raises ValueError for a statement that breaks this.
    """

    name: str
    topic: Topic
    figure: Shown
    verdict: Verdict
    text: str
    effect: Effect | None = None

    def __post_init__(self) -> None:
        decided = self.effect is not None and self.effect.decided
        if self.verdict in ("undecided", "missing") and decided:
            raise ValueError(f"{self.name}: a decided effect is called {self.verdict}")
        if not decided and (self.verdict in ("good", "bad") or (self.verdict == "neutral" and self.effect is not None)):
            raise ValueError(f"{self.name}: {self.verdict} without a decided effect")


TIMES = 10.0  # a share of so much is no percentage any more
MOST_TIMES = 1000  # a larger ratio says no more: "more than 1,000 times"


def shown(figure: Figure) -> str:
    """A figure with its error."""
    return with_error(figure.value, figure.error)


def change(effect: Effect) -> str:
    """An effect with its sign and error: "+0.012 ± 0.003"."""
    return with_error(effect.value, effect.error, sign=True)


def size(effect: Effect) -> str:
    """An effect without its sign, with its error: "0.012 ± 0.003"."""
    return with_error(abs(effect.value), effect.error)


def brief(value: float, digits: int = 2) -> str:
    """A plain number of so many digits, or of all its whole ones: "0.031", "3.2", "1,204"."""
    return f"{value:,.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def count(number: int, noun: str) -> str:
    """A number of things: "1 image", "1,280 images", "1.2 million images"."""
    plural = noun if number == 1 else f"{noun}s"
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name} {plural}"
    return f"{number:,} {plural}"


def percent(share: float) -> str:
    """A share as a percentage: "0.04%", "2.6%", "93%", "99.4%", never rounded to 0 or 100; from 10 on "48 times"."""
    if not share < TIMES:
        return times(share)
    size = 100 * share
    return f"{size:.1f}%" if 99 < size < 99.95 else f"{min(size, 99.99):.4g}%" if 99 < size < 100 else f"{brief(size)}%"


def times(ratio: float) -> str:
    """A ratio in words: "1.25 times", "48 times", "more than 1,000 times"."""
    if not ratio <= MOST_TIMES:
        return f"more than {MOST_TIMES:,} times"
    return f"{ratio:,.{2 if ratio < 10 else 0}f} times"


def typed(code: str, run: str = "RUN") -> str:
    """Code of a sentence as a shell takes it: ``seeds=3`` as ``--seeds 3``, and the quoted folder ``run`` for RUN."""
    if not re.match(r"unstir |[a-z][\w.]*=", code):
        return code
    options = re.sub(r"""(?:(?<= )|^)([a-z][\w.]*)=((?:"[^"]*"|'[^']*'|\S)+)""", lambda it: _option(*it.groups()), code)
    return re.sub(r"\bRUN\b", lambda _: shlex.quote(run), options)


def _option(name: str, value: str) -> str:
    section, _, key = name.rpartition(".")
    return {"True": f"--{name}", "False": f"--{section and section + '.'}no-{key}"}.get(value, f"--{name} {value}")


def sentence(text: str) -> str:
    """A clause of a finding with a capital and a full stop; a setting or a symbol such as x_T keeps its case."""
    shown = text.rstrip(".")
    first = shown.partition(" ")[0]
    return f"{shown}." if set(first) & set("_.=") else f"{shown[:1].upper()}{shown[1:]}."
