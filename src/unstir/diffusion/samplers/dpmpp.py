"""DPM-Solver++ (Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling"), multistep, one network call per step.

The estimate of the clean image is taken as a polynomial in lambda through the last one, two or three estimates. With
one it is DDIM. The second-order form keeps the paper's simplification (its algorithm 2): e^lambda is integrated with a
slope of weight one half. `dpmpp_2m_sde` solves the reverse SDE instead, whose first order is ancestral sampling with
the small variance.

The first step has no history and the last one, to sigma = 0, does not need it: both are of first order. That first step
sets the limit of the third-order form: its error falls by 4 when steps double. With fewer than 15 steps the last but
one is of second order at most, which is more stable.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step
from unstir.diffusion.samplers.exponential import Estimate, Span, half_log_snr, remember
from unstir.theory.process import Process

FEW_STEPS = 15


@parts.sampler
def dpmpp_2m(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Second order, deterministic. Yields Steps as `ddim`, ``noise`` unused."""
    return _multistep(denoise, process, x_T, times, order=2)


@parts.sampler
def dpmpp_3m(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Third order, deterministic. Yields Steps as `ddim`, ``noise`` unused."""
    return _multistep(denoise, process, x_T, times, order=3)


def _multistep(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], order: int) -> Iterator[Step]:
    x, history = x_T, list[Estimate]()
    for left, (t, s) in zip(range(len(times) - 2, -1, -1), pairwise(times), strict=True):
        x0 = denoise(x, t).x0
        history = remember(history, Estimate(half_log_snr(process.schedule, t), x0), order)
        few = len(times) - 1 < FEW_STEPS
        usable = 1 if left == 0 else min(len(history), 2) if left == 1 and few else len(history)
        x = x0 if s == 0 else _step(Span.of(process.schedule, t, s), x, x0, history[len(history) - usable :])
        yield Step(s, x, x0)


def _step(span: Span, x: Tensor, x0: Tensor, history: list[Estimate]) -> Tensor:
    """One step with the polynomial through the history, whose newest estimate is x0."""
    h, decay = span.h, math.expm1(-span.h)
    x = span.ratio * x + span.weight * x0
    if len(history) < 2:
        return x
    newest, last = history[-1], history[-2]
    r0 = (newest.lambda_ - last.lambda_) / h
    slope = (newest.x0 - last.x0) / r0
    if len(history) == 2:
        return x + 0.5 * span.weight * slope
    r1 = (last.lambda_ - history[-3].lambda_) / h
    bend = slope - (last.x0 - history[-3].x0) / r1
    slope, curvature = slope + r0 / (r0 + r1) * bend, bend / (r0 + r1)
    return x + span.alpha * (decay / h + 1) * slope - span.alpha * ((decay + h) / h**2 - 0.5) * curvature


@parts.sampler
def dpmpp_2m_sde(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Second order, of the reverse SDE: fresh noise at each step but the last. Yields Steps as `ddim`."""
    x, history = x_T, list[Estimate]()
    for t, s in pairwise(times):
        x0 = denoise(x, t).x0
        history = remember(history, Estimate(half_log_snr(process.schedule, t), x0), 2)
        if s == 0:
            x = x0
        else:
            span = Span.of(process.schedule, t, s)
            share = -math.expm1(-2 * span.h)  # of sigma_s^2 that is fresh noise
            x = span.ratio * math.exp(-span.h) * x + span.alpha * share * x0 + span.sigma * math.sqrt(share) * noise(t)
            if len(history) == 2:
                newest, last = history[-1], history[-2]
                slope = (newest.x0 - last.x0) * (span.h / (newest.lambda_ - last.lambda_))
                x = x + 0.5 * span.alpha * share * slope
        yield Step(s, x, x0)
