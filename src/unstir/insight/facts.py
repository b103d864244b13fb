"""What is known of a run: one value, read once, that the doctor's checks, sentences and pages are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from torch import Tensor

from unstir.data import SPLITS, Store
from unstir.errors import printable
from unstir.insight.image_stats import ImageStats
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.metrics.likelihood import Likelihood
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import Config
from unstir.runs.run import Run
from unstir.significance import Effect, paired, two_sample

Line = dict[str, Any]  # of a log
Lines = tuple[Line, ...]

WORTH = 0.01  # a change of less than this share of the loss is not worth acting on
STEEP = 0.1  # a run is too short where each doubling of the images seen takes away this share of the loss or more


class Measurement(NamedTuple):
    """A line of held_out.jsonl: losses of held-out and training images (if any) over the times and numbers ``of``."""

    step: int
    images: int
    of: tuple[object, int, int]
    train: list[float]
    held_out: list[float]

    @property
    def loss(self) -> float:
        """The mean loss of held-out images."""
        return fmean(self.held_out)


def measurement(line: Line) -> Measurement | None:
    """A line with a loss of each image; None where one is no finite number, or there are no two of a split."""
    train, held_out = (line.get(f"of_{split}") or [] for split in SPLITS)
    if len(train) == 1 or len(held_out) < 2 or not all(map(math.isfinite, train + held_out)):
        return None
    return Measurement(line["step"], line["images"], (line.get("times"), len(train), len(held_out)), train, held_out)


@dataclass(frozen=True)
class _Stretch:
    """The last doubling or so of images seen: by it the losses changed, ``fall`` held out, ``on_train`` if measured."""

    before: Measurement
    after: Measurement
    fall: Effect
    on_train: Effect | None

    @property
    def share(self) -> float:
        """The change of the held-out loss, without its sign, as a share of the loss before."""
        return abs(self.fall.value) / self.before.loss

    @property
    def rate(self) -> float:
        """The share of the held-out loss that each doubling of the images seen took away."""
        doublings = math.log2(self.after.images / self.before.images)
        return 1 - float((self.after.loss / self.before.loss) ** (1 / doublings))

    @property
    def gains(self) -> bool:
        """Whether a longer run has more to gain: a decided fall that matters, of training images too if known."""
        learns = self.on_train is None or self.on_train.negative
        return self.fall.negative and self.share >= WORTH and learns

    @property
    def steep(self) -> bool:
        """Whether it has so much to gain that the run is too short."""
        return self.gains and self.rate >= STEEP


def last_stretch(measured: Sequence[Measurement]) -> _Stretch | None:
    """How the losses changed since the images seen were most nearly half those of now; None where that is no line."""
    earlier = [item for item in measured[:-1] if item.step > 0 and measured[-1].images >= 1.3 * item.images > 0]
    if not earlier:
        return None
    after = measured[-1]
    before = min(earlier, key=lambda item: abs(math.log2(after.images / item.images) - 1))
    on_train = paired(before.train, after.train) if after.train else None
    return _Stretch(before, after, paired(before.held_out, after.held_out), on_train)


class Rise(NamedTuple):
    """The changes of the losses of the same images since the ``lowest`` held-out loss, which is one of ``choices``."""

    lowest: Measurement
    held_out: Effect
    train: Effect
    more: Effect
    choices: int

    @property
    def over_fits(self) -> bool:
        """Whether the held-out loss rose for sure, and surely more than that of training images, which did not."""
        return self.held_out.positive and self.more.positive and not self.train.positive


def rise(measured: Sequence[Measurement]) -> Rise | None:
    """How the losses changed since the lowest held-out loss; None where that is the last, or only that was measured."""
    lowest = min(measured, key=lambda item: item.loss, default=None)
    if lowest is None or lowest is measured[-1] or not lowest.train:
        return None
    last, choices = measured[-1], len(measured) - 1
    held_out, train = paired(lowest.held_out, last.held_out, choices), paired(lowest.train, last.train)
    return Rise(lowest, held_out, train, grown(lowest, last, choices), choices)


def grown(before: Measurement, after: Measurement, choices: int = 1) -> Effect:
    """By how much the gap between the splits grew: their mean changes compared by Welch's t."""
    of_splits = (before.train, after.train), (before.held_out, after.held_out)
    on_train, on_held_out = ([b - a for a, b in zip(*rows, strict=True)] for rows in of_splits)
    return two_sample(on_train, on_held_out, choices)


DAMAGED = "is damaged or of another version"  # what is said of a file of figures that cannot be read
MISSING = {
    "lines": "no line in metrics.jsonl yet",
    "held_out": "no line in held_out.jsonl",
    "loaded": "no saved weights that are whole",
    **dict.fromkeys(("store", "images"), "the data is not there"),
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

    ``lines`` are those of metrics.jsonl, ``held_out`` those of held_out.jsonl, ``loaded`` is the newest of ``files``
    that is whole, ``images`` are the statistics of the ``store``. ``samples`` are drawn for the doctor; ``unmeasured``
    says why they are missing. ``by_step`` are evaluations of several saved steps by one protocol, by rising step;
    ``by_chain`` those of the last of these steps by several samplers and calls, alike in everything else. ``bound`` is
    of held-out images. ``left_out`` names files that are damaged, not of this run or not of its weights.
    """

    run: Run
    lines: Lines = ()
    files: tuple[SavedFile, ...] = ()
    loaded: Checkpoint | None = None
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
        saved = [file.step for file in self.files if not file.problem]
        return max([*(line["step"] for line in self.lines[-1:]), *saved], default=0)

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
        result = [item for line in self.held_out if (item := measurement(line))]
        return [item for item in result if item.of == result[-1].of]

    def why_not(self, part: str) -> str:
        """Why a part is None or empty; "" where it is there."""
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
