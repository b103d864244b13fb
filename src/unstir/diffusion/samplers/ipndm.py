"""iPNDM: DDIM steps with an Adams-Bashforth average of the last noise estimates (Liu et al. 2022, PNDM; the start with
rising order in place of Runge-Kutta steps is Zhang & Chen's, 2023, DEIS, sec. 4).

One network call per step. The averages assume equal steps, so that its order is two in general (Liu et al., sec. 3.4).
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from operator import add

from torch import Tensor

from unstir.chain import check_signal
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step, check_times
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the newest estimate, the one before, ..., by how many there are."""


def ipndm(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Yield a Step for each of ``times[1:]``; arguments as `ddim`, ``noise`` unused.

    Raises UserError where the signal at ``times[0]`` is zero, for the noise does not determine the image there.
    """
    check_times(times, process)
    schedule, x, history = process.schedule, x_T, list[Tensor]()
    check_signal("ipndm", schedule, times[0])
    for t, s in pairwise(times):
        x0 = denoise(x, t).x0
        history = [process.eps(x, x0, t), *history][:4]
        eps = adams_bashforth(history)
        x = x0 if s == 0 else transfer(schedule, x, eps, t, s)  # at 0 the average would leave noise that is not in x0
        yield Step(s, x, x0)


def adams_bashforth(history: list[Tensor]) -> Tensor:
    """The average of the newest estimate and up to three before it, newest first, for steps of one length."""
    weights = ADAMS_BASHFORTH[len(history) - 1]
    return reduce(add, (weight * past for weight, past in zip(weights, history, strict=True)))


def transfer(schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """DDIM's step from x_t [B, C, H, W] to time s with any estimate of the noise (Liu et al. 2022, eqs. 9 and 11)."""
    return schedule.alpha(s) * (x - schedule.sigma(t) * eps) / schedule.alpha(t) + schedule.sigma(s) * eps
