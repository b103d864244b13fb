"""Samplers: generators that turn noise into images a step at a time, all over the one `Denoise` interface."""

from collections.abc import Callable, Iterator

from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.diffusion.samplers.step import Noise, Step

SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {"ancestral": ancestral, "ddim": ddim}

__all__ = ["SAMPLERS", "Noise", "Step", "ancestral", "ddim"]
