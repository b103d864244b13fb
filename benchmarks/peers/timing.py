"""Calls that take turns, and what is said of their times: medians, quartiles, and ratios within a turn.

The speed of a machine drifts by tens of per cent within minutes. Two calls of one turn meet nearly the same machine, so
the ratio is taken in each turn, and then the median of the ratios.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Contestant:
    """Something to be timed, by a ``side`` ("unstir", "diffusers", ...) in a setting of it.

    One ``call`` is the part 1 / ``times`` of a job that handles ``images`` images in ``flops`` floating-point
    operations (0: not counted) of ``dtype``. What is reported is of the whole job.
    """

    side: str
    setting: str
    call: Callable[[], object]
    images: float
    flops: float = 0.0
    dtype: str = "float32"
    times: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.side}, {self.setting}" if self.setting else self.side


@dataclass(frozen=True)
class Timed:
    """A contestant with the seconds that its job took in each turn."""

    contestant: Contestant
    seconds: tuple[float, ...] = field(repr=False)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def images_per_second(self) -> float:
        return self.contestant.images / self.median

    def share(self, limits: dict[str, float]) -> float | None:
        """The part of the machine's limit, FLOP/s by dtype, that it reaches; None where either is unknown."""
        limit = limits.get(self.contestant.dtype)
        return self.contestant.flops / self.median / limit if limit and self.contestant.flops else None

    def faster_than(self, other: "Timed") -> tuple[float, float, float]:
        """How many times as fast as another it is: the median over turns, and the quartiles."""
        return spread([theirs / ours for ours, theirs in zip(self.seconds, other.seconds, strict=True)])


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and the quartiles of some values, which of one value are itself."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def in_turns(
    contestants: Sequence[Contestant],
    rounds: int,
    *,
    finish: Callable[[], object] = lambda: None,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timed]:
    """Time each contestant ``rounds`` times, all of them in every round, each round beginning with another one.

    The first ``warm_up`` rounds are not counted. ``finish()`` waits for what a call left the device to do.
    """
    seconds: list[list[float]] = [[] for _ in contestants]
    for number in range(-warm_up, rounds):
        for place in range(len(contestants)):
            which = (place + number) % len(contestants)
            finish()
            began = clock()
            contestants[which].call()
            finish()
            if number >= 0:
                seconds[which].append((clock() - began) * contestants[which].times)
    return [Timed(each, tuple(times)) for each, times in zip(contestants, seconds, strict=True)]
