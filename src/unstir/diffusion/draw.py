"""From seeds to images: the starting noise of each image, its noise on the way, and the chain between.

Image number i is a function of (seed, i) and the settings, whatever batch it is computed in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unstir import randomness
from unstir.diffusion.denoiser import Denoise, clipped
from unstir.diffusion.samplers import SAMPLERS, Step
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.theory.process import Process
from unstir.theory.schedule import times


@dataclass(frozen=True)
class Chain:
    """How to sample: which sampler, over how many of the T times (network calls an image), spaced and clamped how.

    ``variance`` is "auto", "small", "large" or "learned" (see `ancestral`); ``clip`` clamps each estimate of the clean
    image to [-1, 1]; ``seed`` fixes all noise. ``eta`` is `ddim`'s share of randomness, 0 to 1.
    """

    sampler: str = "ancestral"
    steps: int = 1000
    spacing: str = "trailing"
    variance: str = "auto"
    clip: bool = True
    seed: int = 0
    eta: float = 0.0

    def check(self, T: int) -> None:
        """Raise UserError for a sampler, spacing or number of steps that a chain of T does not have, or a wrong eta."""
        if self.sampler not in SAMPLERS:
            raise UserError(f"sampler={self.sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}")
        if self.eta and self.sampler != "ddim":
            raise UserError(f'eta={self.eta} is an option of sampler="ddim", not of {self.sampler!r}; leave it out')
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta={self.eta} is outside 0..1: 0 is deterministic, 1 is ancestral sampling")
        times(T, self.steps, self.spacing)

    def options(self) -> dict[str, Any]:
        """What the sampler takes beside what all samplers take."""
        options: dict[str, dict[str, Any]] = {"ancestral": {"variance": self.variance}, "ddim": {"eta": self.eta}}
        return options[self.sampler]


def starting_noise(seed: int, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x_T of the images with these indices, int64 [B]: standard normal, float32 [B, *shape]."""
    return randomness.normal(Key(seed, "start", 0, indices), shape)


def draw(denoise: Denoise, process: Process, x_T: Tensor, indices: Tensor, chain: Chain) -> Iterator[Step]:
    """Yield the steps from noise ``x_T`` [B, C, H, W] to images; ``indices`` int64 [B] name the images.

    The last step's ``x`` are the images, about [-1, 1]. Raises UserError for an unknown sampler, spacing or step count.
    """
    chain.check(process.T)
    shape = tuple(x_T.shape[1:])

    def noise(t: int) -> Tensor:
        return randomness.normal(Key(chain.seed, "sample", t, indices), shape).to(x_T.dtype)

    visited = times(process.T, chain.steps, chain.spacing)
    denoise = clipped(denoise) if chain.clip else denoise
    return SAMPLERS[chain.sampler](denoise, process, x_T, visited, noise, **chain.options())
