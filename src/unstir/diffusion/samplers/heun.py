"""Heun's method on the probability-flow ODE, in the variables of Karras et al. 2022 (EDM, algorithm 1).

With y = x / alpha and u = sigma / alpha the ODE is dy/du = (y - x_0_hat) / u. Each step takes the slope at both of its
ends, so two network calls; the last one, to u = 0, is Euler's, with one.

Where u falls by orders of magnitude in one step, as at the start of a cosine schedule, the slope at the far end is
multiplied by alpha_s (u_t / u_s - 1) / 2, which may be thousands. Where that exceeds 2, the step takes the estimate to
be linear in the log-SNR between its ends instead, and solves that exactly in the form of `exponential`: second order
too, with weights that sum to 1 - u_s / u_t and so bounded.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir.chain import check_signal
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step, check_times
from unstir.theory.process import Process

MOST = 2.0  # the largest weight of the slope at a step's far end, relative to the change of the estimate along the step


def heun(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Yield a Step for each of ``times[1:]``; arguments as `ddim`, ``noise`` unused. Second order, deterministic.

    Raises UserError where the signal at ``times[0]`` is zero, for y has no value there.
    """
    check_times(times, process)
    schedule = process.schedule
    check_signal("heun", schedule, times[0])
    ratio = {t: schedule.sigma(t) / schedule.alpha(t) for t in times}
    y = x_T / schedule.alpha(times[0])
    for t, s in pairwise(times):
        x0 = denoise(y * schedule.alpha(t), t).x0
        ahead = x0  # where Euler's step to u = 0 ends
        if s > 0:
            alpha, fall = schedule.alpha(s), ratio[s] / ratio[t]
            ahead = fall * y + (1 - fall) * x0  # Euler's step
            x0_ahead = denoise(ahead * alpha, s).x0
            if alpha * (1 / fall - 1) / 2 > MOST:
                ahead = fall * y + (1 - fall) * x0 + (1 + (1 - fall) / math.log(fall)) * (x0_ahead - x0)
            else:
                slope, slope_ahead = (y - x0) / ratio[t], (ahead - x0_ahead) / ratio[s]
                ahead = y + (ratio[s] - ratio[t]) / 2 * (slope + slope_ahead)
        y = ahead
        yield Step(s, y * schedule.alpha(s), x0)
