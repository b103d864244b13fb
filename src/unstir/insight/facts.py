"""What is known of a run: one value, read once, that the doctor's checks, sentences and pages are made of."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from unstir.data import Store
from unstir.errors import printable
from unstir.insight.held_out import Line, Lines, Measurement, alike
from unstir.insight.image_stats import ImageStats
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.metrics.likelihood import Likelihood
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import Config
from unstir.runs.run import Run

DAMAGED = "is damaged or of another version"  # what is said of a file of figures that cannot be read
MISSING = {
    "lines": "no line in metrics.jsonl yet",
    "held_out": "no line in held_out.jsonl",
    "loaded": "no saved weights that are whole",
    "store": "the data is not there",
    "images": "the data is not there",
}
"""Why a part of the facts is None or empty. Samples have several reasons: `Facts.unmeasured`."""

NO_SAMPLES = "no images were drawn for it; `unstir doctor RUN` makes these checks in seconds"


@dataclass(frozen=True)
class SavedFile:
    """A checkpoint on disk: its step, its path, "full" or "slim", and what is wrong with it."""

    step: int
    path: Path
    kind: str
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Samples:
    """Images drawn from a run, ``made`` uint8 [N, C, H, W] in 0..255, and ``real`` ones [M, C, H, W] to compare with.

    Both have each class in the same proportion where the network knows any. ``chain`` says how they were drawn.
    """

    made: Tensor
    real: Tensor
    chain: str


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds per image by chain name (`chain_key`), on ``machine``, ``num`` images at once; ``date`` is ISO 8601."""

    seconds: dict[str, float]
    num: int
    machine: dict[str, Any]
    date: str
    run: str


def chain_key(sampler: str, calls: int) -> str:
    """What a chain is called in `Speed.seconds`: what decides its time."""
    return f"{sampler} {calls}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """A run as its folder has it. What cannot be had is None or empty, and `why_not` has the reason.

    ``lines`` are those of metrics.jsonl, ``held_out`` those of held_out.jsonl, ``files`` every checkpoint with what is
    wrong with it, ``loaded`` the newest that is whole, ``images`` the statistics of the ``store``. ``samples`` are
    drawn for the doctor; ``unmeasured`` says why they are missing. ``by_step`` are evaluations of several saved steps
    by one protocol, by rising step; ``by_chain`` those of the last of these steps by several samplers and calls, alike
    in everything else. ``bound`` is what `unstir likelihood` wrote of held-out images; ``speed`` is how long samplers
    take. ``left_out`` names the files of figures that are damaged or of other weights than the run's.
    """

    run: Run
    lines: Lines = ()
    files: tuple[SavedFile, ...] = ()
    loaded: Checkpoint | None = None
    settings_problem: str = ""
    store: Store | None = None
    store_problem: str = ""
    held_out: Lines = ()
    images: ImageStats | None = None
    samples: Samples | None = None
    unmeasured: str = ""
    by_step: tuple[Evaluation, ...] = ()
    by_chain: tuple[Evaluation, ...] = ()
    bound: Likelihood | None = None
    speed: Speed | None = None
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the run's folder, as it may be shown."""
        return printable(self.run.path.resolve().name)

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return self.run.config

    @property
    def data(self) -> DataCard:
        """The data of the run."""
        return self.run.data

    @property
    def step(self) -> int:
        """The step that the run stands at: the highest of its last logged line and its saved files that are whole."""
        return max(
            [*(it["step"] for it in self.lines[-1:]), *(it.step for it in self.files if not it.problem)], default=0
        )

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.run.length

    @property
    def last(self) -> Evaluation | None:
        """The evaluation of the newest step evaluated."""
        return self.by_step[-1] if self.by_step else None

    @property
    def older(self) -> str:
        """Where the newest evaluation is of an older step than the run's: which, in words; else ""."""
        if self.last is None or self.last.step >= self.step:
            return ""
        return f"of step {self.last.step:,}, while the run is at step {self.step:,}"

    @property
    def last_line(self) -> Line:
        """The last line of metrics.jsonl, with the training images seen and the seconds."""
        return self.lines[-1] if self.lines else {"images": 0, "seconds": 0.0}

    @cached_property
    def measured(self) -> list[Measurement]:
        """The held-out losses that can be compared with the last, by rising step."""
        return alike(self.held_out)

    def why_not(self, part: str) -> str:
        """Why a part is None or empty; an empty string where it is there."""
        return MISSING.get(part, self.unmeasured) if getattr(self, part) in (None, ()) else ""


@dataclass(frozen=True)
class ImagesFacts:
    """What is known of images that no run drew: their ``name``, figures, and the ``data`` they were compared with."""

    name: str
    data: DataCard
    last: Evaluation

    @property
    def by_step(self) -> tuple[Evaluation, ...]:
        """The evaluation alone."""
        return (self.last,)

    by_chain = ()


Reported = Facts | ImagesFacts
"""What sentences and tables on samples are made of: a run, or images that no run drew."""


def same_features(evaluation: Evaluation, figure: str) -> Figure | None:
    """The figure of this name ("coverage") in the features of the main one; None where it is not there."""
    return evaluation.figures.get(f"{evaluation.main_key.split('/')[0]}/{figure}")


def more_seeds(of: Evaluation) -> str:
    """The command that makes the errors of an evaluation smaller: more sets, each of as many images as now."""
    return f"`unstir report RUN num={of.protocol['num']} seeds={max(10, 3 * of.protocol['seeds'])}`"
