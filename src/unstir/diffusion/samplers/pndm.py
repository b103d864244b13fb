"""PNDM (Liu et al. 2022, "Pseudo numerical methods for diffusion models on manifolds", algorithm 2): three pseudo
Runge-Kutta steps of four network calls each, then the linear multistep method of `ipndm` with one.

The methods are the classical ones of fourth order with their straight lines replaced by DDIM's transfer

    phi(x_t, eps, t, s) = alpha_s / alpha_t (x_t - sigma_t eps) + sigma_s eps                           (eqs. 9 and 11)

which is right for noise that does not change, so that the whole is of second order, as they prove.
The Runge-Kutta step from t to s calls the network at t, twice at the midpoint m, and at s (eq. 13):

    e_1 = eps(x_t, t)     e_2 = eps(phi(x_t, e_1, t, m), m)     e_3 = eps(phi(x_t, e_2, t, m), m)
    e_4 = eps(phi(x_t, e_3, t, s), s)                           x_s = phi(x_t, (e_1 + 2 e_2 + 2 e_3 + e_4) / 6, t, s)

A stage passes its error on, multiplied. With u = sigma / alpha, a change of 1 in the estimate of the image at m
changes e_2 by 1 / u_m; e_3 by up to u_t / u_m times as much, for x_m has moved too; e_4 by u_t / u_s - 1 times e_3; x_s

    by up to  alpha_s (u_t - u_s) / (6 u_m) (2 + u_t / u_m (1 + u_t / u_s)),

where noise has size 1. Where it exceeds 1 (in a cosine schedule it is 2700 from 1000 to 994), the step averages the
estimates of the image in the form of `exponential` instead, which multiplies nothing by more than 1. So it does where
rounding errors would grow: that of e_1 moves x_m by `ipndm.reach` from t to m, twice, and x_s by that from t to s,
twice, and a sixth.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step
from unstir.diffusion.samplers.exponential import Span
from unstir.diffusion.samplers.ipndm import MOST, Order, multistep, reach, transfer
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule

RUNGE_KUTTA_STEPS = 3


@parts.sampler
def pndm(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Yield Steps as `ddim`, ``noise`` unused; to 0 in one network call, the first three of the others in four."""
    schedule, x, history, order = process.schedule, x_T, list[Tensor](), Order(process.schedule)
    for number, (t, s) in enumerate(pairwise(times)):
        x0 = denoise(x, t).x0
        history = [process.eps(x, x0, t), *history][:4]
        if s == 0:
            x = x0  # the average would leave noise that x0 does not have
        elif number < RUNGE_KUTTA_STEPS:
            x = _runge_kutta(denoise, process, x, x0, t, s)
        else:
            x = multistep(schedule, x, x0, history[: order.of(len(history), t, s)], t, s)
        yield Step(s, x, x0)


def _runge_kutta(denoise: Denoise, process: Process, x: Tensor, x0: Tensor, t: int, s: int) -> Tensor:
    """x_s of x_t, whose estimate of the image is ``x0``; the midpoint is rounded down."""
    schedule, half = process.schedule, (t + s) // 2
    rounding = reach(schedule, t, half) * reach(schedule, t, s)  # its square may exceed all numbers
    of_noise = _count(schedule, t, half, s) <= 1 and rounding <= math.sqrt(6 * MOST)

    def kept(x_u: Tensor, x0_u: Tensor, u: int) -> Tensor:
        return process.eps(x_u, x0_u, u) if of_noise else x0_u

    def ahead(estimate: Tensor, u: int) -> Tensor:
        span = Span.of(schedule, t, u)
        return transfer(schedule, x, estimate, t, u) if of_noise else span.ratio * x + span.weight * estimate

    estimates = [kept(x, x0, t)]
    for u in (half, half, s):
        x_u = ahead(estimates[-1], u)
        estimates.append(kept(x_u, denoise(x_u, u).x0, u))
    first, second, third, fourth = estimates
    return ahead((first + 2 * second + 2 * third + fourth) / 6, s)


def _count(schedule: NoiseSchedule, t: int, m: int, s: int) -> float:
    """The largest effect on x_s of an estimate of the image made at m, in the form of the noise; see above."""
    u_t, u_m, u_s = (schedule.sigma(time) / schedule.alpha(time) for time in (t, m, s))
    return schedule.alpha(s) * (u_t - u_s) / (6 * u_m) * (2 + u_t / u_m * (1 + u_t / u_s))
