"""UniPC (Zhao et al. 2023, "UniPC: a unified predictor-corrector framework"), one network call per step.

The predictor is a multistep step as in `dpmpp`. The call at the point it reaches then serves twice: as the estimate for
the next step, and before that to correct the point itself, which raises the order by one without a further call. The
coefficients are those of the paper's B_2(h) = e^h - 1 variant, in data prediction.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unstir import parts
from unstir.diffusion.denoiser import Denoise
from unstir.diffusion.samplers import Noise, Step
from unstir.diffusion.samplers.exponential import Estimate, Span, half_log_snr, remember
from unstir.errors import UserError
from unstir.theory.process import Process


@parts.sampler
def unipc(
    denoise: Denoise, process: Process, x_T: Tensor, times: Sequence[int], noise: Noise, order: int = 3
) -> Iterator[Step]:
    """Yield Steps as `ddim`, ``noise`` unused.

    Step k = 1, 2, ... predicts with order min(k, ``order``, steps left), and ``order`` is 1, 2 or 3; its correction is
    one order higher. Raises UserError for another order.
    """
    if order not in (1, 2, 3):
        raise UserError("order", order, "is unknown", "UniPC has 1, 2 and 3")
    x, history = x_T, list[Estimate]()
    start: tuple[Span, Tensor, list[Estimate]] | None = None  # where the last step began, and from what it predicted
    for left, (t, s) in zip(range(len(times) - 1, 0, -1), pairwise(times), strict=True):
        new = Estimate(half_log_snr(process.schedule, t), denoise(x, t).x0)
        if start is not None:
            x = _step(*start, new)
        history = remember(history, new, order)
        span, known = Span.of(process.schedule, t, s), history[-min(order, left) :]
        if s == 0 or not known:
            start, x = None, new.x0 if s == 0 else span.ratio * x + span.weight * new.x0
        else:
            start = span, x, known
            x = _step(*start)
        yield Step(s, x, new.x0)


def _step(span: Span, x: Tensor, known: list[Estimate], reached: Estimate | None = None) -> Tensor:
    """Predict from the estimates ``known``, newest last; with the estimate at the point ``reached``, correct."""
    newest = known[-1]
    others = [(each, (each.lambda_ - newest.lambda_) / span.h) for each in reversed(known[:-1])]
    if reached is not None:
        others.append((reached, 1.0))
    x = span.ratio * x + span.weight * newest.x0
    for (each, place), rho in zip(others, _coefficients(span.h, [place for _, place in others]), strict=True):
        x = x + span.weight * rho / place * (each.x0 - newest.x0)
    return x


def _coefficients(h: float, places: list[float]) -> list[float]:
    """The weights of divided differences at these places, in units of the step from the newest estimate.

    They solve sum_k rho_k r_k^(i-1) = b_i for i = 1..n, b_i = i! phi_(i+1)(-h) / phi_1(-h), where
    phi_1(x) = (e^x - 1) / x and phi_(k+1)(x) = (phi_k(x) - 1 / k!) / x. With one place the paper takes 1/2, which has
    the same order.
    """
    n = len(places)
    if n < 2:
        return [0.5] * n
    phi, factorial, b = math.expm1(-h) / -h - 1, 1.0, []
    for i in range(1, n + 1):
        b.append(phi * factorial / math.expm1(-h))
        factorial *= i + 1
        phi = phi / -h - 1 / factorial
    matrix = torch.tensor([[place**i for place in places] for i in range(n)], dtype=torch.float64)
    solved: list[float] = torch.linalg.solve(matrix, torch.tensor(b, dtype=torch.float64)).tolist()
    return solved
