"""The losses of held-out and training images: whether a longer run would lower them, and whether it over-fits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from unstir.data import SPLITS
from unstir.significance import Effect, paired, two_sample

Line = dict[str, Any]  # of a log
Lines = tuple[Line, ...]

WORTH = 0.01  # a fall over the last stretch of less than this share of the loss is not worth a longer run
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


def alike(lines: Lines) -> list[Measurement]:
    """The lines with losses that can be compared with the last of them, by rising step."""
    result = [item for line in lines if (item := measurement(line))]
    return [item for item in result if item.of == result[-1].of]


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
