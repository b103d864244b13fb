"""How much memory a U-Net's activations take, from its config alone: nothing is computed or allocated.

The backward pass needs maps that the forward pass made. Of a residual block from C_in to C_out channels these are, at
each position, what its group norms and their activations give (2 C_in and 2 C_out), the sum between them (C_out), its
dropout mask (C_out, a byte each), and in the levels up the join that it takes (C_in); of an attention, six maps, and
where two products take the place of the fused kernel (`by_products`) the scores of all heads and one map more.

With activation checkpointing a stage, which is a block with its attention or a change of resolution, keeps its mask and
what it takes from the stage before. All else is there a second time while the backward pass is in it: one stage's.
Numbers that are few beside these, such as the means of norms, are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from unstir.nn.config import UNetConfig

BACKWARD = 3
"""Maps as large as a stage's largest that exist for a moment in the backward pass: gradients."""

SMALL_MAP = 64  # positions, of which a head's scores take little memory however few channels it has


def by_products(positions: int, channels: int) -> bool:
    """Whether attention over so many positions, of heads with so many channels, is by two products where these are
    faster (`blocks.Attention`): where scores are no more numbers than the head has, or few.
    """
    return positions <= max(channels, SMALL_MAP)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Numbers per image, at a ``level``: of the maps that it takes from the stage before, joins from the way down and
    makes, what its backward pass needs of its ``inside``, the most that its forward pass holds of that, its dropout
    ``mask`` and the ``scores`` of attention by products; ``skips`` says that what it makes is joined on the way ``up``.
    """

    level: int
    taken: int
    joined: int = 0
    made: int
    inside: int
    passing: int
    mask: int = 0
    scores: int = 0
    skips: bool = False
    up: bool = False

    @property
    def largest(self) -> int:
        """Its largest map."""
        return max(self.taken + self.joined, self.made)


def training_bytes(
    config: UNetConfig, height: int, width: int, itemsize: int, checkpointed: int = 0, *, products: bool = False
) -> int:
    """Bytes per image at the peak of a training pass, weights aside; a number has ``itemsize`` bytes.

    ``checkpointed`` levels, from the full resolution down, recompute their activations. ``products`` says that
    attention is by two products where `by_products` lets it.
    """
    kept, peak, head = 0, 0, config.widths[0] * height * width
    for stage in stages(config, height, width):
        again = stage.level < checkpointed
        scores = stage.scores if products else 0
        inside = stage.inside + (scores + stage.made if scores else 0)
        needs = (stage.taken if again or not stage.up else 0) + (0 if again else inside)  # a join is a copy
        kept += needs * itemsize + stage.mask
        peak = max(peak, kept + (again * inside + max(BACKWARD * stage.largest, 2 * scores)) * itemsize)
    return max(peak, kept + (3 + BACKWARD) * head * itemsize)  # what the last norm takes, it, and its activation


def sampling_bytes(config: UNetConfig, height: int, width: int, itemsize: int) -> int:
    """Bytes per image at the peak of a forward pass without gradients; a number has ``itemsize`` bytes."""
    skips = peak = config.widths[0] * height * width
    for stage in stages(config, height, width):
        peak = max(peak, skips + stage.taken + stage.passing)
        skips += stage.made * stage.skips - stage.joined
    return peak * itemsize


def stages(config: UNetConfig, height: int, width: int) -> Iterator[Stage]:
    """The stages of the network in order of execution, for images of this size."""
    widths, last = config.widths, len(config.widths) - 1
    sizes = [height * width >> 2 * level for level in range(last + 1)]
    skips, now = [widths[0]], widths[0]
    for level, out in enumerate(widths):
        for _ in range(config.num_blocks):
            yield _block(config, level, sizes, now, out, attends=level in config.attention, skips=True)
            skips, now = [*skips, out], out
        if level < last:
            skips = [*skips, now]
            inside = 0 if config.downsample_padding else now * ((height >> level) + 1) * ((width >> level) + 1)
            taken, made = now * sizes[level], now * sizes[level + 1]
            yield Stage(level=level, taken=taken, made=made, inside=inside, passing=inside + made, skips=True)
    for attends in (True, False):
        yield _block(config, last, sizes, now, now, attends=attends)
    for level, out in reversed(list(enumerate(widths))):
        for _ in range(config.num_blocks + 1):
            *skips, skip = skips
            yield _block(config, level, sizes, now, out, skip, attends=level in config.attention, up=True)
            now = out
        if level:
            double = now * sizes[level - 1]
            yield Stage(level=level, taken=now * sizes[level], made=double, inside=double, passing=2 * double, up=True)


def _block(
    config: UNetConfig,
    level: int,
    sizes: list[int],
    taken: int,
    made: int,
    joined: int = 0,
    *,
    attends: bool,
    **how: bool,
) -> Stage:
    """A residual block between these channels, with its attention."""
    size, given = sizes[level], taken + joined
    join, heads = given if joined else 0, config.heads_of(made)
    return Stage(
        level=level,
        taken=taken * size,
        joined=joined * size,
        made=made * size,
        inside=(join + 2 * given + 3 * made + (6 * made if attends else 0)) * size,
        passing=max(join + 2 * max(given, made), 8 * made if attends else 0) * size,
        mask=made * size if config.dropout else 0,
        scores=heads * size**2 if attends and by_products(size, made // heads) else 0,
        **how,
    )
