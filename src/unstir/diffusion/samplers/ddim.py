"""DDIM (Song, Meng & Ermon 2021): the same network, a chain that need not be random.

    x_s = alpha_s x_0_hat + sqrt( sigma_s^2 - v ) eps_hat + sqrt(v) z        v = eta^2 beta~ of the stride  (eq. 12)

eta = 0 is deterministic: one noise, one image. eta = 1 is ancestral sampling with the small variance. eps_hat is what
the estimate x_0_hat, clamped or not, says of the noise in x_t, so that x_t = alpha_t x_0_hat + sigma_t eps_hat holds.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step
from unstir.theory.process import Process


@parts.sampler
def ddim(
    denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise, eta: float = 0.0
) -> Iterator[Step]:
    """Yield a Step for each of ``times[1:]``, starting from ``x_T`` [B, C, H, W] at ``times[0]``.

    ``times`` fall strictly, usually to 0, and ``eta`` is in [0, 1], which `Chain` checks; a step to 0 adds no noise.
    """
    schedule, x = process.schedule, x_T
    for t, s in pairwise(times):
        x0 = denoise(x, t).x0
        eps = process.eps(x, x0, t)
        var = eta**2 * process.posterior_coefficients(t, s)[2]
        x = schedule.alpha(s) * x0 + math.sqrt(schedule.sigma(s) ** 2 - var) * eps
        if s > 0 and eta > 0:
            x = x + math.sqrt(var) * noise(t)
        yield Step(s, x, x0)
