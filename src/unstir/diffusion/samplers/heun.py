"""Heun's method on the probability-flow ODE, in the variables of Karras et al. 2022 (EDM, algorithm 1).

With y = x / alpha and u = sigma / alpha the ODE is dy/du = (y - x_0_hat) / u, which is the estimate of the noise. Each
step takes it at both of its ends, so two network calls; the last one, to u = 0, is Euler's, with one.

Where u falls by orders of magnitude in one step, as at the start of a cosine schedule, the slope at the far end is
multiplied by alpha_s (u_t / u_s - 1) / 2, which may be thousands. Where that exceeds 2, the step takes the estimate to
be linear in the log-SNR between its ends instead, and solves that exactly in the form of `exponential`: second order
too, with weights that sum to 1 - u_s / u_t and so bounded. So it does where u falls to less than a hundredth, by which
rounding errors of the state would be multiplied. All is computed of x: where alpha_T is small, y has no float32.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step
from unstir.diffusion.samplers.exponential import Span
from unstir.diffusion.samplers.ipndm import reach
from unstir.theory.process import Process

MOST = 2.0  # the largest weight of the slope at a step's far end, relative to the change of the estimate along the step
LEAST = 0.01  # what is left of u at the end of a step by slopes


@parts.sampler
def heun(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Yield Steps as `ddim`; second order, deterministic."""
    schedule, x = process.schedule, x_T
    for t, s in pairwise(times):
        x0 = denoise(x, t).x0
        ahead = x0  # where Euler's step to u = 0 ends
        if s > 0:
            span, alpha = Span.of(schedule, t, s), schedule.alpha(s)
            ahead = span.ratio * x + span.weight * x0  # Euler's step
            x0_ahead, fall = denoise(ahead, s).x0, math.exp(-span.h)
            if alpha * (1 / fall - 1) / 2 > MOST or fall < LEAST:
                ahead = ahead + alpha * (1 - (1 - fall) / span.h) * (x0_ahead - x0)
            else:
                slope, slope_ahead = process.eps(x, x0, t), process.eps(ahead, x0_ahead, s)
                ahead = alpha / schedule.alpha(t) * x - reach(schedule, t, s) / 2 * (slope + slope_ahead)
        x = ahead
        yield Step(s, x, x0)
