"""The losses of held-out and training images as a run's log has them, and whether a longer run would lower them.

How fast the held-out loss falls where a run ends is judged here once, for the doctor and for the page of the run. The
measure is its fall over the last doubling (or so) of the images seen, for each doubling; docs/doctor.md has what runs
of several lengths measure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple, Protocol, TypeVar

from unstir.data import SPLITS
from unstir.doctor.numbers import Line, Lines, is_number
from unstir.significance import Effect, paired

WORTH = 0.01  # a fall over the last stretch of less than this share of the loss is not worth a longer run
STEEP = 0.1  # a run is too short where each doubling of the images seen takes away this share of the loss or more


class Seen(Protocol):
    """What is known after a number of optimiser steps and of training images."""

    @property
    def step(self) -> int:
        """The optimiser steps taken."""

    @property
    def images(self) -> int:
        """The training images seen."""


class Measured(Seen, Protocol):
    """The losses of images, those of one split being of the same images each time; ``train`` may be empty."""

    @property
    def held_out(self) -> Sequence[float]:
        """The loss of each held-out image."""

    @property
    def train(self) -> Sequence[float]:
        """The loss of each training image."""


class Losses(NamedTuple):
    """A line of held_out.jsonl: a loss of each image, ``of`` these times and numbers of images, which may change."""

    step: int
    images: int
    of: tuple[object, int, int]
    train: list[float]
    held_out: list[float]


def losses(line: Line) -> Losses | None:
    """A line with a loss of each image; None where one is no finite number, or there are no two of a split."""
    train, held_out = (line.get(f"of_{split}", []) for split in SPLITS)
    for each in (train, held_out):
        if not isinstance(each, list) or len(each) < 2 or not all(map(is_number, each)):
            return None
    images = line.get("images")
    seen = int(images) if is_number(images) else 0
    return Losses(line["step"], seen, (line.get("times"), len(train), len(held_out)), train, held_out)


def alike(lines: Lines) -> list[Losses]:
    """The lines with losses that can be compared with the last of them, by rising step."""
    found = [each for line in lines if (each := losses(line))]
    return [each for each in found if each.of == found[-1].of]


SomeSeen = TypeVar("SomeSeen", bound=Seen)


def half_way(found: Sequence[SomeSeen]) -> SomeSeen | None:
    """The one after the start from which the images seen grow most nearly twofold to the last; or None."""
    last = found[-1]
    earlier = [each for each in found[:-1] if each.step > 0 and last.images >= 1.3 * each.images > 0]
    return min(earlier, key=lambda each: abs(math.log2(last.images / each.images) - 1), default=None)


@dataclass(frozen=True)
class Stretch:
    """The last doubling or so of the images seen, and the changes over it, of the same images before and after.

    ``fall`` is that of the held-out loss, ``on_train`` that of the loss of training images, None where it was not
    measured.
    """

    before: Measured
    after: Measured
    fall: Effect
    on_train: Effect | None

    @property
    def share(self) -> float:
        """The change of the held-out loss, without its sign, as a share of the loss before."""
        return abs(self.fall.value) / fmean(self.before.held_out)

    @property
    def rate(self) -> float:
        """The share of the held-out loss that each doubling of the images seen took away."""
        doublings = math.log2(self.after.images / self.before.images)
        return 1 - float((fmean(self.after.held_out) / fmean(self.before.held_out)) ** (1 / doublings))

    @property
    def gains(self) -> bool:
        """Whether a longer run has more to gain: a decided fall that matters, of training images too if known."""
        learns = self.on_train is None or self.on_train.negative
        return self.fall.negative and self.share >= WORTH and learns

    @property
    def steep(self) -> bool:
        """Whether it has so much to gain that the run is too short."""
        return self.gains and self.rate >= STEEP


def last_stretch(measured: Sequence[Measured]) -> Stretch | None:
    """How the losses changed over the last stretch; None where it has no beginning."""
    before = half_way(measured) if measured else None
    if before is None:
        return None
    after = measured[-1]
    on_train = paired(before.train, after.train) if after.train else None
    return Stretch(before, after, paired(before.held_out, after.held_out), on_train)
