"""The options of a chain, for every command that samples."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from cyclopts import Group, Parameter

from unstir.runs.sections import GridConfig, SamplerName, SpacingName


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class TimeOptions:
    """Which times are visited; by default as in the run's [grids] settings."""

    steps: int | None = None
    """How many of the T times are visited, 1 to T."""
    spacing: SpacingName | None = None
    """Which of the T times are visited."""
    clip: bool | None = None
    """Clamp the estimate of the clean image to [-1, 1] at each step; without, a poor network can run away."""


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class FillOptions(TimeOptions):
    """The ancestral chain, which filling in takes."""

    variance: Literal["auto", "small", "large", "learned"] | None = None
    """Of ancestral; auto: learned if it was, else large (beta) over all T steps, small (beta~) over fewer."""
    threshold: float | None = None
    """Quantile of dynamic thresholding, such as 0.995, in place of the plain clamp."""
    guidance: float | None = None
    """Scale of guidance: 1 is the conditional model, 0 the unconditional one; a paper's w is this - 1."""
    guidance_low: int | None = None
    """The least time at which guidance acts; left out: 1."""
    guidance_high: int | None = None
    """The greatest time at which guidance acts; 0, or left out: T."""
    guide: str | None = None
    """What guidance leads away from: a less trained step (1000), another run (its folder), or its step (RUN@1000); by
    default the network without its label."""


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class ChainOptions(FillOptions):
    """How to sample."""

    sampler: SamplerName | None = None
    """How images are drawn."""
    steps: int | None = None
    """Network calls an image, 1 to T."""
    eta: float | None = None
    """Of ddim: 0 is deterministic, 1 is ancestral sampling with the small variance."""


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class InvertOptions(TimeOptions):
    """Times that invert best, whatever the run's."""

    spacing: SpacingName | None = "log_snr"
    """Which of the T times are visited. Even in log-SNR no step is so long that it cannot be inverted."""


def over(options: Any, base: Any) -> Any:
    """The chain ``base`` with what is given of the ``options`` of a command, of any number of them, in its place."""
    given = {key: value for key, value in dataclasses.asdict(options).items() if value is not None and key != "guide"}
    chain = base.by(given.get("sampler", base.sampler))
    if given.get("guidance", chain.guidance) == 1:
        chain = chain.unguided()  # the run's own interval goes with its own scale
    return dataclasses.replace(chain, **given)


def chain_group(options: type) -> Group:
    """The group of a command's chain options, which says what they are by default."""
    usual = dataclasses.asdict(GridConfig())
    names = [each.name for each in dataclasses.fields(options) if each.name in usual and each.default is None]
    said = ", ".join(f"{name} {_in_words(usual[name])}" for name in names)
    return Group(
        "Chain",
        help=f"Defaults are as in the run's [grids] settings: {said}, unless its recipe or config differs.",
    )


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
