"""iPNDM: DDIM steps with an Adams-Bashforth average of the last noise estimates (Liu et al. 2022, PNDM; the start with
rising order in place of Runge-Kutta steps is Zhang & Chen's, 2023, DEIS, sec. 4).

One network call per step. The averages assume equal steps, so that its order is two in general (Liu et al., sec. 3.4).

While there is hardly a signal, eps is x, whatever the network says, and the state is to stay as it is. A step that
averages k estimates then hands a change d_n = x_n - x_(n-1), which may be a rounding error, on as

    d_(n+1) = reach sum_(i>0) w_i (d_n + ... + d_(n-i+1)),       reach = alpha_s sigma_t / alpha_t - sigma_s,

so by at most reach times 0, 1/2, 4/3 or 17/6 of the largest of the last three, for k = 1 to 4. Over a long linear
schedule in few steps that would be 10^10. So a step averages fewer estimates where the product would exceed `MOST`,
down to one, which is DDIM's own step.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from operator import add

from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step
from unstir.diffusion.samplers.exponential import Span
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the newest estimate, the one before, ..., by how many there are."""
GROWTH = (0.0, 1 / 2, 4 / 3, 17 / 6)
"""By how much a change of the state grows in a step of reach 1, at most, by how many estimates are averaged."""
MOST = 100.0
"""The largest product of what successive steps multiply a change by, while there is hardly a signal."""


@parts.sampler
def ipndm(denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise) -> Iterator[Step]:
    """Yield Steps as `ddim`, ``noise`` unused."""
    schedule, x, history, order = process.schedule, x_T, list[Tensor](), Order(process.schedule)
    for t, s in pairwise(times):
        x0 = denoise(x, t).x0
        history = [process.eps(x, x0, t), *history][:4]
        # at 0 the average would leave noise that is not in x0
        x = x0 if s == 0 else multistep(schedule, x, x0, history[: order.of(len(history), t, s)], t, s)
        yield Step(s, x, x0)


def multistep(schedule: NoiseSchedule, x: Tensor, x0: Tensor, latest: list[Tensor], t: int, s: int) -> Tensor:
    """x_s of x_t [B, C, H, W], whose estimate of the image is ``x0``, by the average of the ``latest`` of the noise."""
    if len(latest) == 1:
        span = Span.of(schedule, t, s)
        return span.ratio * x + span.weight * x0  # as `transfer`, without a difference of large numbers
    weights = ADAMS_BASHFORTH[len(latest) - 1]  # for steps of one length
    return transfer(schedule, x, reduce(add, (w * past for w, past in zip(weights, latest, strict=True))), t, s)


class Order:
    """How many estimates the steps of one chain average: as many as there are, and as the bound on growth allows."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self._schedule, self._grown = schedule, [1.0]

    def of(self, num: int, t: int, s: int) -> int:
        """So many of ``num`` estimates, 1 to 4, for the step from t to s, which is the next one."""
        before = max(self._grown) * reach(self._schedule, t, s)
        order = max((k for k in range(2, num + 1) if before * GROWTH[k - 1] <= MOST), default=1)
        self._grown = [max(1.0, before * GROWTH[order - 1]) if order > 1 else 1.0, *self._grown][:3]
        return order


def reach(schedule: NoiseSchedule, t: int, s: int) -> float:
    """By how much a change of the noise's estimate changes x_s, alpha_s sigma_t / alpha_t - sigma_s."""
    return schedule.alpha(s) * schedule.sigma(t) / schedule.alpha(t) - schedule.sigma(s)


def transfer(schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
    """DDIM's step from x_t [B, C, H, W] to time s with any estimate of the noise (Liu et al. 2022, eqs. 9 and 11)."""
    return schedule.alpha(s) / schedule.alpha(t) * (x - schedule.sigma(t) * eps) + schedule.sigma(s) * eps
