"""Consistency: what its loss asks for, and its sampler, on Gaussian data, where the ends of paths are known."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.loss import SMOOTH, Objective, denoising_loss
from unstir.diffusion.samplers.consistency import consistency
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, require
from unstir.verify.exact import M, Table, denoising, nodes, normal, output
from unstir.verify.loss import Network

S = 0.5  # the standard deviation of the data
TIMES = (1, 10, 100, 500, 1000)


def _earlier(t: int, gap: float) -> int:
    return t - max(math.ceil(gap * t), 1)


def _end(table: Table, t: int) -> float:
    """The slope of the end of the path through x_t: s / sqrt( v_t )."""
    return S / math.sqrt(table.abar(t) * S**2 + table.var(t))


def _angle(table: Table, t: int) -> float:
    return math.atan2(table.sigma(t), S * table.alpha(t))


def _fixed_point(table: Table, gap: float, t: int) -> float:
    """The slope at t that the loss asks for: of the end of a DDIM chain over t, r(t), r(r(t)), ... to 0."""
    slope = _end(table, t)
    while t > 0:
        r = _earlier(t, gap)
        slope *= math.cos(_angle(table, t) - _angle(table, r))
        t = r
    return slope


@check(1e-12, "Song et al. 2023, sec. 3; Geng et al. 2025")
def _consistency_boundary() -> Iterator[float]:
    """The estimate at t = 0 is x_0, whatever the network says: c_skip(0) = 1 and c_out(0) = 0, and so is the target.

    x_0_hat of eps and v at t = 0 with x_0; the loss of pairs (t, 0) with the distance of x_0_hat from x_0 over sigma_t;
    relative
    """
    table, x_0, raw = exact.linear(), normal("x_0", 5, 3, 2, 2), normal("output", 5, 3, 2, 2)
    process, t = Process(linear()), torch.tensor(TIMES)
    for kind in ("eps", "v"):
        yield relative(PARAMETERIZATIONS[kind].x0(process.schedule, x_0, 0, raw), x_0)
    denoiser = Denoiser(Network(raw), process, PARAMETERIZATIONS["x0"])
    distance = ((raw - x_0).square().mean((1, 2, 3)) + SMOOTH**2).sqrt() - SMOOTH
    for gap, rows in ((1.0, 5), (0.5, 1)):  # of the second only t = 1 has r = 0
        made = denoising_loss(denoiser, x_0, t, raw, objective=Objective("consistency", gap=gap)).total
        yield relative(made[:rows], (distance / table.tensor(table.sigma, TIMES))[:rows])


@check(1e-9, "Song et al. 2023, theorem 2; Geng et al. 2025; Pierret & Galerne 2025")
def _consistency_fixed_point() -> Iterator[float]:
    """The loss asks for the end of the DDIM chain t, r(t), r(r(t)), ..., 0: at gap 1 for E[x_0 | x_t], at ever smaller
    gaps for the end of the path, m + s / sqrt( v_t ) (x_t - alpha_t m).

    gradient of `denoising_loss` there for data N(0.3, 0.5^2), 5 times and gaps 1, 1/2, 1/16 and 1/256, with 0, and its
    value with the formula; absolute
    """
    table, gaps, off = exact.linear(), (1.0, 0.5, 1 / 16, 1 / 256), []
    for gap in gaps:
        made, expected, gradient = _loss(table, gap, partial(_fixed_point, table, gap))
        yield from [absolute(made, expected), absolute(gradient, torch.zeros(2, 5))]
        off.append(max(1 - _fixed_point(table, gap, t) / _end(table, t) for t in TIMES[1:]))
        if gap < 1:
            of_mean = _loss(table, gap, lambda t: table.alpha(t) * _end(table, t) ** 2)[2]
            require(bool((of_mean[0, 1:].abs() > 1e-3).all()), "the mean of x_0 is taken for the end of its path")
    require(all(b < a for a, b in pairwise(off)), f"smaller gaps do not come nearer: {off}")


def _loss(table: Table, gap: float, slope: Callable[[int], float]) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each of 9 pairs (x_0, eps) at each of the times [45], by the package and by its formula, and the
    gradient of its mean: [2, 5], for each time with respect to the slope and to a shift of the estimate.

    The estimate is m + slope(t) (x_t - alpha_t m). The nodes are turned so that the first axis is that of x_t: the
    distance of a pair lies along the other one, and any odd function of it has the mean 0.
    """
    alpha, sigma = (table.tensor(of, TIMES).view(5, 1) for of in (table.alpha, table.sigma))
    first, second, weights = (each.view(1, 9) for each in nodes())
    spread = (alpha.square() * S**2 + sigma.square()).sqrt()
    x_0 = M + S * (S * alpha * first - sigma * second) / spread
    eps = (sigma * first + S * alpha * second) / spread
    earlier = [_earlier(t, gap) for t in TIMES]
    of_time = {t: slope(t) for t in (*TIMES, *earlier)}
    slopes = torch.tensor([of_time.get(t, 0.0) for t in range(1001)], dtype=torch.float64, requires_grad=True)
    shifts = torch.zeros(1001, dtype=torch.float64, requires_grad=True)
    centre = M * table.tensor(table.alpha, range(1001))

    def estimate(x: Tensor, time: Tensor) -> Tensor:
        slope_t, centre_t, shift_t = (each[time + 1].view(-1, 1, 1, 1) for each in (slopes, centre, shifts))
        return M + slope_t * (x - centre_t) + shift_t

    denoiser = Denoiser(Network(estimate), Process(linear()), PARAMETERIZATIONS["x0"])
    images, noise = (each.reshape(45, 1, 1, 1) for each in (x_0, eps))
    with torch.enable_grad():
        t, kind = torch.tensor(TIMES).repeat_interleave(9), Objective("consistency", gap=gap)
        made = denoising_loss(denoiser, images, t, noise, objective=kind).total
        found = torch.autograd.grad((made * weights.expand(5, 9).reshape(45)).sum(), [slopes, shifts])
    alpha_r, sigma_r = (table.tensor(of, earlier).view(5, 1) for of in (table.alpha, table.sigma))
    slope_t, slope_r = (table.tensor(of_time.__getitem__, each).view(5, 1) for each in (TIMES, earlier))
    apart = slope_t * (alpha * (x_0 - M) + sigma * eps) - slope_r * (alpha_r * (x_0 - M) + sigma_r * eps)
    expected = ((apart.square() + SMOOTH**2).sqrt() - SMOOTH) / (sigma - alpha * sigma_r / alpha_r)
    return made.detach(), expected.reshape(45), torch.stack([each[list(TIMES)] for each in found])


@check(1e-11, "Song et al. 2023, algorithm 1")
def _consistency_moments() -> Iterator[float]:
    """From the ends of paths each call makes the data again: the variance is s^2 / v_s (alpha_s^2 V + sigma_s^2) where
    the image before had V.

    mean and variance of the output of `consistency` in 1, 2 and 4 calls, N(0.3, 0.5^2), with the recursion; relative
    """
    table = exact.linear()
    ends = denoising(table, lambda x_t, t: M + _end(table, t) * (x_t - table.alpha(t) * M))
    for visited in ([1000, 0], [1000, 250, 0], [1000, 562, 250, 62, 0]):
        mean, cov = output(consistency, ends, Process(linear()), visited)
        off, var = -table.alpha(1000) * M * _end(table, 1000), _end(table, 1000) ** 2
        for s in visited[1:-1]:
            off *= table.alpha(s) * _end(table, s)
            var = (table.abar(s) * var + table.var(s)) * _end(table, s) ** 2
        yield from [relative(mean.item(), M + off), relative(cov.item(), var)]
