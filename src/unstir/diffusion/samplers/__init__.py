"""Samplers: generators that turn noise into images a step at a time, all over the one `Denoise` interface."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.diffusion.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from unstir.diffusion.samplers.heun import heun
from unstir.diffusion.samplers.ipndm import ipndm
from unstir.diffusion.samplers.pndm import RUNGE_KUTTA_STEPS, pndm
from unstir.diffusion.samplers.step import Noise, Step
from unstir.diffusion.samplers.unipc import unipc


@dataclass(frozen=True)
class Sampler:
    """A sampler by name: its generator function, the settings it takes beside what all take, and its calls a step.

    ``start`` are the calls of its first steps where they take others; the last step takes one in any case.
    ``divides_by_alpha`` is true of those that have no first step where alpha_T = 0.
    """

    run: Callable[..., Iterator[Step]]
    options: tuple[str, ...] = ()
    calls: int = 1
    start: tuple[int, ...] = ()
    divides_by_alpha: bool = False

    def calls_of(self, steps: int) -> int:
        """The network calls of so many steps, 1 or more."""
        before_last = steps - 1
        return sum(self.start[:before_last]) + self.calls * max(before_last - len(self.start), 0) + 1

    def steps(self, calls: int) -> int:
        """The number of steps that at most ``calls`` network calls, 1 or more, allow."""
        return next(steps for steps in count(1) if self.calls_of(steps + 1) > calls)


SAMPLERS = {
    "ancestral": Sampler(ancestral, ("variance",)),
    "ddim": Sampler(ddim, ("eta",)),
    "dpmpp_2m": Sampler(dpmpp_2m),
    "dpmpp_3m": Sampler(dpmpp_3m),
    "dpmpp_2m_sde": Sampler(dpmpp_2m_sde),
    "unipc": Sampler(unipc),
    "heun": Sampler(heun, calls=2, divides_by_alpha=True),
    "ipndm": Sampler(ipndm, divides_by_alpha=True),
    "pndm": Sampler(pndm, start=(4,) * RUNGE_KUTTA_STEPS, divides_by_alpha=True),
}

__all__ = [
    "SAMPLERS",
    "Noise",
    "Sampler",
    "Step",
    "ancestral",
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "heun",
    "ipndm",
    "pndm",
    "unipc",
]
