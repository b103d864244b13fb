"""A sentence of the analysis, and what it may rest on."""

from dataclasses import dataclass
from typing import Literal

from unstir.significance import LEVEL, Effect

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
    f"What is stated here is larger than {LEVEL:g} of its standard errors. Where twenty effects are tested, fewer "
    "than one page in a hundred states one that chance alone made. Whatever is smaller is called undecided. "
    "Errors (±) are one standard error, those of differences widened where only a few seeds tell them."
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
