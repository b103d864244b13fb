"""Samplers: generators that turn noise into images step by step, all of them through the `Denoise` interface.

`unstir.chain.SAMPLERS` lists them with their files here.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import cast

from unstir.chain import SAMPLERS
from unstir.diffusion.samplers.step import Step


def function_of(sampler: str) -> Callable[..., Iterator[Step]]:
    """The generator function of a sampler: (denoise, process, x_T, times, noise, **options) -> its steps."""
    module = import_module(f"{__name__}.{SAMPLERS[sampler].file}")
    return cast(Callable[..., Iterator[Step]], getattr(module, sampler))
