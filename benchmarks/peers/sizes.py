"""The networks that all sides build. Plain numbers: no side's start-up pays for another's imports."""

from dataclasses import dataclass
from typing import Any

T = 1000  # times of every process
IMAGES = 64  # that are drawn at equal quality


@dataclass(frozen=True)
class Size:
    """A U-Net in the structure of Ho et al. 2020, the side of its square images, and the batch it is trained with.

    Drawing is timed on ``drawn`` images in ``calls`` network calls at once, a part of `IMAGES` and of a whole chain; 0
    is as many calls as our own chain has. ``attention`` names levels, counted from 0, the full resolution.
    """

    channels: int
    mults: tuple[int, ...]
    attention: tuple[int, ...]
    side: int
    batch: int
    drawn: int = IMAGES
    calls: int = 0
    dropout: float = 0.1
    num_blocks: int = 2
    groups: int = 32
    colours: int = 3

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.channels * mult for mult in self.mults)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.colours, self.side, self.side)

    @property
    def dropped(self) -> int:
        """The elements of all dropout masks, for one image."""
        at = [width * (self.side >> level) ** 2 for level, width in enumerate(self.widths)]
        return (2 * self.num_blocks + 1) * sum(at) + 2 * at[-1]

    def __str__(self) -> str:
        return f"{self.channels} channels × {self.mults}, {self.side}×{self.side}, batch {self.batch}"


def size_of(config: Any, shape: tuple[int, int, int], batch: int = 0) -> Size:
    """The size of a run's network for images [C, H, W], trained with the run's batch or another."""
    model = config.model
    return Size(
        model.channels,
        tuple(model.mults),
        tuple(model.attention),
        shape[1],
        batch or config.train.batch_size,
        dropout=model.dropout,
        num_blocks=model.num_blocks,
        groups=model.groups,
        colours=shape[0],
    )


SIZES = {
    "tiny": Size(32, (1, 2, 2), (1,), 16, 64),
    "small": Size(32, (1, 2, 2, 2), (1,), 32, 32),
    "ho": Size(128, (1, 2, 2, 2), (1,), 32, 16, drawn=16, calls=4),
    "report": Size(128, (1, 2, 3, 4), (2,), 32, 16, drawn=16, calls=4, dropout=0.15),
}
"""`ho` is Ho et al.'s network for CIFAR-10, `report` that of the recipe cifar10-report."""
