"""A chain from noise to images: its settings, their rules, and the facts about each sampler. No torch.

The ``[grids]`` section of a run inherits `Chain`; the options of the commands, their help and defaults, and what may
change when a run is continued are read from its fields. A sampler of ours takes a file in `diffusion/samplers/`, and a
line of `SAMPLERS` and of `parts.OURS`. One of the user's own says its facts to `parts.sampler`; its options are those
of the field ``options``.
"""

import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from unstir import parts
from unstir.errors import UserError, refusing
from unstir.parts import OURS, Option, SamplerName, is_own

if TYPE_CHECKING:
    from unstir.theory.schedule import NoiseSchedule


@dataclasses.dataclass(frozen=True)
class Sampler:
    """What is known of a sampler.

    ``options`` are the fields of `Chain` that are not for every sampler; the function takes them by keyword. A step
    takes ``calls`` network calls; the first steps take those of ``start`` instead, and the step to 0 takes one.
    ``divides_by_alpha`` is true of those that cannot begin where alpha_t = 0.
    """

    options: tuple[str, ...] = ()
    calls: int = 1
    start: tuple[int, ...] = ()
    divides_by_alpha: bool = False

    def calls_in(self, steps: int, end: int = 0) -> int:
        """The network calls of so many steps, 1 or more, the last of them to time ``end``."""
        whole = steps - (end == 0)
        return sum(self.start[:whole]) + self.calls * max(whole - len(self.start), 0) + steps - whole


SAMPLERS = {
    **dict.fromkeys(OURS["sampler"], Sampler()),
    "ancestral": Sampler(("variance",)),
    "ddim": Sampler(("eta",)),
    "heun": Sampler(calls=2, divides_by_alpha=True),
    "ipndm": Sampler(divides_by_alpha=True),
    "pndm": Sampler(start=(4, 4, 4), divides_by_alpha=True),
}
"""What is known of each of our samplers, in the order of `parts.OURS`, before its code is loaded."""


def facts_of(sampler: str) -> Sampler:
    """What is known of a sampler, by its name; one of the user's own is loaded. UserError as `parts.find`."""
    return SAMPLERS[sampler] if sampler in SAMPLERS else Sampler(**parts.facts("sampler", sampler))


OPTIONS = tuple(dict.fromkeys(option for sampler in SAMPLERS.values() for option in sampler.options))
"""The settings of a chain that are of some samplers alone."""


def _not_of(sampler: str) -> list[str]:
    """The settings of other samplers than this one; none where a file names a sampler that is unknown here."""
    facts = Sampler() if is_own(sampler) else SAMPLERS.get(sampler, Sampler(OPTIONS))
    return [name for name in OPTIONS if name not in facts.options]


def _option_of_others(name: str, value: Any, sampler: str) -> UserError:
    takers = [taker for taker, facts in SAMPLERS.items() if name in facts.options]
    owners = f"is an option of {' and '.join(takers)}, not of {sampler}"
    return UserError(name, value, owners, (*({"sampler": taker} for taker in takers), {name: None}))


SpacingName = Literal["trailing", "leading", "linspace", "quadratic", "log_snr", "leading_open", "linspace_open"]
Time = Annotated[int, Field(ge=1, le=1_000_000)]
STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True)


@refusing
@dataclass(frozen=True, config=STRICT)
class Chain:
    """How images are drawn. The sentence below each setting is its help on the command line.

    Raises UserError for a value out of bounds, for an option of another sampler unless it is the default, and for a
    setting that has no effect. What depends on the T times or on the schedule is refused by `check` and `visited`.
    """

    sampler: SamplerName = "ancestral"
    """How images are drawn: ancestral, ddim, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde, unipc, heun, ipndm, pndm, or
    MODULE:NAME (docs/extend.md)."""
    steps: Time = 50
    """Number of the times 1 to T that are visited. N steps take N network calls; heun 2N - 1, pndm N + 9 (N > 3)."""
    spacing: SpacingName = "trailing"
    """Which of the T times are visited. With quadratic and log_snr a time that repeats is visited once."""
    times: tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...] = ()
    """The times visited, falling, in place of steps and spacing. The last is where the chain ends: 0, a clean image."""
    variance: Literal["auto", "small", "large", "learned", "optimal"] = "auto"
    """The variance of an ancestral step. auto is learned where the network has it, else large for T steps, small for
    fewer. large is beta, small beta~; optimal lies between them by the measured loss."""
    clip: bool = True
    """Clamp the estimate of the clean image to [-1, 1] at each step. Without it a poor network can diverge."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Randomness of ddim: 0 is deterministic, 1 is ancestral sampling with the small variance."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Quantile of dynamic thresholding, such as 0.995, in place of the plain clamp; 0: none."""
    guidance: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Scale of guidance: 1 is the conditional model, 0 the unconditional one. A paper's w is the scale - 1."""
    guidance_low: Time = 1
    """The lowest time at which guidance acts."""
    guidance_high: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """The highest time at which guidance acts; 0: T."""
    seed: int = 0
    """Seed of the noise."""
    options: dict[str, Option] = dataclasses.field(default_factory=dict, hash=False)
    """Further arguments of the sampler, each by its name, such as order of unipc."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._settle_times()
        for name in _not_of(self.sampler):
            if (value := getattr(self, name)) != DEFAULTS[name]:
                raise _option_of_others(name, value, self.sampler)
        if self.threshold and not self.clip:
            raise UserError("threshold", self.threshold, "needs clip", ({"clip": True}, {"threshold": None}))
        if self.guidance == 1 and (self.guidance_low, self.guidance_high) != (1, 0):
            name = "guidance_low" if self.guidance_low != 1 else "guidance_high"
            raise UserError(name, getattr(self, name), "has no effect at guidance=1", ({name: None}, {"guidance": 2}))
        return self

    def _settle_times(self) -> None:
        """Make the steps those of the times of one's own; UserError where they cannot be visited."""
        if not self.times:
            return
        steps = len(self.times) - 1
        if not steps or any(t <= s for t, s in pairwise(self.times)):
            raise UserError("times", list(self.times), "must fall strictly, from at most T to the end of the chain")
        for name, value in (("steps", steps), ("spacing", "trailing")):
            if (given := getattr(self, name)) not in (value, DEFAULTS[name]):
                raise UserError(name, given, "has no effect beside times", ({name: None}, {"times": None}))
            object.__setattr__(self, name, value)

    def changed(self, **given: Any) -> Self:
        """This chain with what is ``given`` in its place, and without what then has no effect and was not given.

        Of ``options`` each by itself. Left out are the options that the sampler does not take, the interval of a
        guidance that is turned off, and the threshold of a clamp that is. Raises UserError as `Chain`.
        """
        sampler = given.get("sampler", self.sampler)
        idle = _not_of(sampler) + ["options"] * (sampler != self.sampler)
        if foreign := [name for name in idle if name in given and name != "options"]:
            raise _option_of_others(foreign[0], given[foreign[0]], sampler)
        if given.get("guidance", self.guidance) == 1:
            idle += ["guidance_low", "guidance_high"]
        if not given.get("clip", self.clip):
            idle += ["threshold"]
        idle += ["steps", "spacing"] if given.get("times") else ["times"] if given.keys() & {"steps", "spacing"} else []
        if "options" in given and "options" not in idle:
            given["options"] = self.options | given["options"]
        return dataclasses.replace(self, **{name: DEFAULTS[name] for name in idle} | given)

    def in_effect(self) -> dict[str, Any]:
        """The settings without those of other samplers, for files; times of one's own stand in place of a spacing."""
        left_out = [*_not_of(self.sampler), "spacing" if self.times else "times"] + ["options"] * (not self.options)
        settings = dataclasses.asdict(self) | {"times": list(self.times)}  # as JSON has it
        return {name: value for name, value in settings.items() if name not in left_out}

    def check(self, T: int) -> None:
        """Raise UserError for settings that no chain of T times can have, wherever it begins."""
        if self.times and self.times[0] > T:
            raise UserError("times", list(self.times), f"begin outside 1..{T}, the times of the chain")
        if self.steps > T:
            raise UserError("steps", self.steps, f"is outside 1..{T}, the times of the chain", {"steps": T})
        low, high = self.guidance_low, self.guidance_high or T
        for name, value in (("guidance_low", low), ("guidance_high", high)):
            if value > T:
                raise UserError(name, value, f"is outside 1..{T}, the times of the chain", {name: T})
        if low > high:
            least = {"guidance_low": high, "guidance_high": low}
            raise UserError("guidance_low", low, f"is above guidance_high={high}", least)

    def visited(self, schedule: "NoiseSchedule") -> list[int]:
        """The times visited, falling to 0 or the end of `times`; UserError as `check`, or for no signal or options."""
        from unstir.theory.schedule import times  # needs torch

        self.check(schedule.T)
        if self.options:
            parts.check_options("sampler", self.sampler, self.options, "options", facts_of(self.sampler).options)
        visited = list(self.times) or times(schedule, self.steps, self.spacing)
        if facts_of(self.sampler).divides_by_alpha:
            check_signal(self.sampler, schedule, visited[0])
        return visited

    def guidance_acts(self, schedule: "NoiseSchedule") -> bool:
        """Whether a time at which the network is called is in guidance's interval. Raises UserError as `visited`."""
        times = self.visited(schedule)
        called, noisy = times[:-1], [t for t in times if t]
        if self.sampler == "heun":
            called = noisy
        elif self.sampler == "pndm":  # whose first steps call it in the middle too
            called += [*noisy[:4], *((t + s) // 2 for t, s in pairwise(noisy[:4]))]
        return any(self.guidance_low <= t <= (self.guidance_high or schedule.T) for t in called)

    def calls(self, schedule: "NoiseSchedule") -> int:
        """The network calls for an image, the two of guidance counted as one."""
        return self.cost(schedule).calls

    def cost(self, schedule: "NoiseSchedule") -> "Cost":
        """What an image costs; a time that the spacing repeats is visited once. Raises UserError as `visited`."""
        *before, end = self.visited(schedule)
        return Cost(len(before), facts_of(self.sampler).calls_in(len(before), end))


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an image costs: ``steps`` are the times visited, ``calls`` those of the network."""

    steps: int
    calls: int

    def __str__(self) -> str:
        return ", ".join(f"{n:,} {word}{'s' * (n > 1)}" for n, word in ((self.steps, "step"), (self.calls, "call")))


_FIELDS = dataclasses.fields(Chain)  # type: ignore[arg-type, unused-ignore]
DEFAULTS: dict[str, Any] = {item.name: {} if item.name == "options" else item.default for item in _FIELDS}
"""Every setting of a chain with its default."""

FAST = Chain("unipc", steps=20)
"""How images to be evaluated are drawn by default: of a trained network as well as by 1000 steps of the ancestral chain
(docs/sampling.md)."""


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings by which two chains differ, with both values; of other samplers than one's own none counts."""
    foreign = {name for each in (a, b) for name in _not_of(str(each.get("sampler")))}
    names = [name for name in dict.fromkeys((*a, *b)) if name not in foreign]
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def title(chain: Mapping[str, Any]) -> str:
    """A chain of these settings in a few words, the sampler and what is unusual: "ddim, eta 1, log_snr"."""
    options = {name: chain[name] for name in OPTIONS if chain.get(name, DEFAULTS[name]) != DEFAULTS[name]}
    options |= chain.get("options", {})
    unusual = [value if isinstance(value, str) else f"{name} {value:g}" for name, value in options.items()]
    where = ["own times"] if chain.get("times") else [] if chain["spacing"] == "trailing" else [chain["spacing"]]
    return ", ".join([chain["sampler"], *unusual, *where])


def check_signal(sampler: str, schedule: "NoiseSchedule", t: int) -> None:
    """Raise UserError where a sampler that divides by alpha_t would begin without any signal."""
    if schedule.abar(t) == 0:
        divides = f"divides by alpha_t, which is 0 at t={t} where it begins"
        raise UserError("sampler", sampler, divides, ({"sampler": "ddim"}, {"sampler": "dpmpp_2m"}))
