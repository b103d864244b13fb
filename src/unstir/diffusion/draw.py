"""From seeds to images: the starting noise of each image, its noise on the way, and the chain between.

Image number i is a function of (seed, i) and the settings, whatever batch it is computed in.
"""

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from unstir import randomness
from unstir.diffusion.denoiser import Denoise, clipped, thresholded
from unstir.diffusion.finite import finite
from unstir.diffusion.guidance import Interval, guided
from unstir.diffusion.samplers import SAMPLERS, Step
from unstir.diffusion.samplers.step import check_signal
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule, times


@dataclass(frozen=True)
class Chain:
    """How to sample: which sampler, over how many of the T times (network calls an image), spaced and clamped how.

    ``steps`` counts network calls an image, at most; Heun's method takes two a step, PNDM four in each of its first
    three, and a spacing may have fewer times to offer. ``variance`` is "auto", "small", "large" or "learned"
    (`ancestral`), ``eta`` is `ddim`'s share of randomness. ``clip`` clamps each estimate of the clean image to [-1, 1];
    with ``threshold``, a quantile in (0, 1), by dynamic thresholding. ``guidance`` is the scale of `guided` between
    times ``guidance_low`` and ``guidance_high`` (0: T). ``seed`` fixes all noise.
    """

    sampler: str = "ancestral"
    steps: int = 1000
    spacing: str = "trailing"
    variance: str = "auto"
    clip: bool = True
    seed: int = 0
    eta: float = 0.0
    threshold: float = 0.0
    guidance: float = 1.0
    guidance_low: int = 1
    guidance_high: int = 0

    def by(self, sampler: str) -> "Chain":
        """This chain by another sampler, without the options that were the old one's own."""
        return self if sampler == self.sampler else replace(self, sampler=sampler, variance="auto", eta=0.0)

    def unguided(self) -> "Chain":
        """This chain without guidance."""
        return replace(self, guidance=1.0, guidance_low=1, guidance_high=0)

    def check(self, schedule: NoiseSchedule) -> None:
        """Raise UserError for settings that a chain of this schedule cannot have, wherever it begins."""
        if self.sampler not in SAMPLERS:
            near = difflib.get_close_matches(self.sampler, SAMPLERS, n=1)
            meant = f"did you mean {near[0]!r}? There are" if near else "choose one of"
            raise UserError(f"sampler={self.sampler!r} is unknown; {meant} {', '.join(SAMPLERS)}")
        if self.eta and self.sampler != "ddim":
            raise UserError(f'eta={self.eta} is an option of sampler="ddim", not of {self.sampler!r}; leave it out')
        if self.variance != "auto" and self.sampler != "ancestral":
            raise UserError(
                f'variance={self.variance!r} is an option of sampler="ancestral", not of {self.sampler!r}; leave it out'
            )
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta={self.eta} is outside 0..1: 0 is deterministic, 1 is ancestral sampling")
        if not 0 <= self.threshold < 1:
            raise UserError(f"threshold={self.threshold} is no quantile in 0..1; 0.995 is usual, 0 is none")
        if self.threshold and not self.clip:
            raise UserError(f"threshold={self.threshold} is a way of clamping, which clip=False turns off; choose one")
        if not 0 <= self.guidance < math.inf:
            raise UserError(f"guidance={self.guidance} must be a number of at least 0; 1 is none, 2 is usual")
        if not 1 <= self.guidance_low <= (self.guidance_high or schedule.T) <= schedule.T:
            raise UserError(
                f"guidance from {self.guidance_low} to {self.guidance_high} is no interval of times; both are in "
                f"1..{schedule.T} (0 as the upper end: {schedule.T})"
            )
        if self.guidance == 1 and (self.guidance_low, self.guidance_high) != (1, 0):
            raise UserError(
                "an interval of guidance has no effect at guidance=1; give a scale, such as 2, or leave it out"
            )
        if not 1 <= self.steps <= schedule.T:
            times(schedule, self.steps, self.spacing)  # says what is allowed

    def times(self, schedule: NoiseSchedule) -> list[int]:
        """The times visited, falling to 0. Raises UserError as `check`, or for a sampler that cannot begin there."""
        self.check(schedule)
        visited = times(schedule, SAMPLERS[self.sampler].steps(self.steps), self.spacing)
        if SAMPLERS[self.sampler].divides_by_alpha:
            check_signal(self.sampler, schedule, visited[0])
        return visited

    def calls(self, schedule: NoiseSchedule) -> int:
        """The network calls an image that are really made, the two of guidance counted as one."""
        return SAMPLERS[self.sampler].calls_of(len(self.times(schedule)) - 1)


def starting_noise(seed: int, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x_T of the images with these indices, int64 [B]: standard normal, float32 [B, *shape]."""
    return randomness.normal(Key(seed, "start", 0, indices), shape)


def steered(
    denoise: Denoise, chain: Chain, process: Process, weak: Denoise | None = None, indices: Tensor | None = None
) -> Denoise:
    """The denoiser as the chain asks for it: guided away from ``weak``, then clamped. UserError without a weak one.

    An answer that is not finite raises NotFiniteError, which names the image by ``indices``, int64 [B].
    """
    if chain.guidance != 1:
        if weak is None:
            raise UserError(
                f"guidance={chain.guidance} needs a network trained with train.label_dropout, or a weaker one as guide"
            )
        denoise = guided(denoise, weak, chain.guidance, Interval(chain.guidance_low, chain.guidance_high or process.T))
    denoise = finite(denoise, indices)
    if not chain.clip:
        return denoise
    return thresholded(denoise, chain.threshold) if chain.threshold else clipped(denoise)


def draw(
    denoise: Denoise, process: Process, x_T: Tensor, indices: Tensor, chain: Chain, weak: Denoise | None = None
) -> Iterator[Step]:
    """Yield the steps from noise ``x_T`` [B, C, H, W] to images; ``indices`` int64 [B] name the images.

    The last step's ``x`` are the images, about [-1, 1]. ``weak`` is what guidance leads away from. Raises UserError for
    settings that `Chain.times` refuses, for guidance without a weak denoiser, or for an answer that is not finite.
    """
    visited = chain.times(process.schedule)
    shape = tuple(x_T.shape[1:])

    def noise(t: int) -> Tensor:
        return randomness.normal(Key(chain.seed, "sample", t, indices), shape).to(x_T.dtype)

    denoise = steered(denoise, chain, process, weak, indices)
    sampler = SAMPLERS[chain.sampler]
    options = {name: getattr(chain, name) for name in sampler.options}
    return sampler.run(denoise, process, x_T, visited, noise, **options)
