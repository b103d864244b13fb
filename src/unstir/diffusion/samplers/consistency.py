"""Multistep consistency sampling (Song et al. 2023, algorithm 1), of a network that learned the ends of whole paths.

Its estimate is not E[x_0 | x_t] but an image, the end of the path through x_t, so that one call is a sample. More calls
mend it: noise is put back on the image, less each time, and the estimate of that is the next image.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step
from unstir.theory.process import Process


@parts.sampler
def consistency(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Yield Steps to ``times[1:]``: x_s = alpha_s x_0_hat + sigma_s z, at 0 x_0_hat."""
    x = x_T
    for t, s in pairwise(times):
        x0 = denoise(x, t).x0
        x = x0 if s == 0 else process.diffuse(x0, s, noise(t))
        yield Step(s, x, x0)
