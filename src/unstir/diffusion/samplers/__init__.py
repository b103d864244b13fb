"""Samplers: generators that turn noise into images a step at a time, all over the one `Denoise` interface."""

from collections.abc import Callable, Iterator

from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.diffusion.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from unstir.diffusion.samplers.heun import heun
from unstir.diffusion.samplers.ipndm import ipndm
from unstir.diffusion.samplers.step import Noise, Step
from unstir.diffusion.samplers.unipc import unipc

SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {"ancestral": ancestral, "ddim": ddim}

__all__ = [
    "SAMPLERS",
    "Noise",
    "Step",
    "ancestral",
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "heun",
    "ipndm",
    "unipc",
]
