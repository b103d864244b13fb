"""Samplers: generators that turn noise into images a step at a time, all over the one `Denoise` interface."""

from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.step import Noise, Step

SAMPLERS = {"ancestral": ancestral}

__all__ = ["SAMPLERS", "Noise", "Step", "ancestral"]
