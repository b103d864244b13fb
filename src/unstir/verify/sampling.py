"""Samplers on data whose ideal denoiser is known, compared with exact results.

With Gaussian data a sampler is an affine map of its noise, so that its output's mean and covariance can be read off.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser, Labelled, Prediction, clipped
from unstir.diffusion.draw import draw
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.theory.oracle import GaussianData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear, times
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, relative_to_size, require
from unstir.verify.exact import M, Table, denoising, gaussian_denoise, normal, output, smooth_denoise
from unstir.verify.loss import Network

ALL = range(1000, -1, -1)


def recursion(table: Table, s2: float, visited: Sequence[int], variance: str) -> tuple[float, float]:
    """Mean (over m) and variance of the ancestral chain's output for data N(m, s2), a step at a time."""
    mean, var = 0.0, 1.0
    for t, s in pairwise(visited):
        at_x_t, at_x_0, small = table.posterior(t, s)
        gain = table.alpha(t) * s2 / (table.abar(t) * s2 + table.var(t))
        scale = at_x_t + at_x_0 * gain
        mean = scale * mean + at_x_0 * (1 - gain * table.alpha(t))
        var = scale**2 * var + (0 if s == 0 else table.beta(t, s) if variance == "large" else small)
    return mean, var


@check(1e-10, "Ho et al. 2020, algorithm 2; Pierret & Galerne 2025")
def _ancestral_moments() -> Iterator[float]:
    """Over all steps N(m, 1) comes out with variance 1 - beta_1 under beta, a point as itself under beta~, and N(0.3,
    0.5^2) with variance / s^2 - 1 = 0.00300830 (beta) or -0.01549915 (beta~).

    mean and variance of the output of `ancestral`, T = 1000, with the recursion in decimals and these values; absolute
    """
    table, variances = exact.linear(), {}
    for s, variance in ((1.0, "large"), (0.0, "small"), (0.5, "large"), (0.5, "small")):
        mean, cov = output(ancestral, gaussian_denoise(table, s), Process(linear()), ALL, variance=variance)
        over_m, var = recursion(table, s**2, ALL, variance)
        yield from [relative(mean.item(), over_m * M), absolute(cov.item(), var)]
        variances[s, variance] = cov.item()
    for variance, excess in (("large", 0.00300830), ("small", -0.01549915)):
        found = variances[0.5, variance] / 0.25 - 1
        require(abs(found - excess) < 5e-9, f"variance / s^2 - 1 with {variance} is {found:.8f}, not {excess:.8f}")
    point, _ = output(ancestral, gaussian_denoise(table, 0.0), Process(linear()), ALL, variance="small")
    yield absolute(variances[1.0, "large"], 1 - table.beta(1))
    yield absolute([point.item(), variances[0.0, "small"]], [M, 0.0])


@check(1e-10, "Pierret & Galerne 2025")
def _ancestral_covariance() -> Iterator[float]:
    """Along each eigenvector of the data's covariance an image is a chain of its own.

    mean and full covariance of 2x2 RGB images out of `ancestral`, 50 and 17 of 50 steps, beta, beta~ and auto (beta
    over all steps, beta~ over fewer), with the recursion of each eigenvalue; relative to the largest element
    """
    table, shape = exact.linear(50, "0.002", "0.25"), (3, 2, 2)
    axes = torch.linalg.qr(normal("axes", 12, 12)).Q
    spectrum = torch.linspace(0.02, 2.0, 12, dtype=torch.float64)
    m = normal("mean", *shape)
    data, process = GaussianData(m, (axes * spectrum) @ axes.mT), Process(linear(50, 0.002, 0.25))
    denoise = denoising(table, lambda x_t, t: data.estimate(x_t, table.alpha(t), table.sigma(t)))
    for visited in (range(50, -1, -1), times(process.schedule, 17)):
        for variance in ("large", "small", "auto"):
            kind = variance if variance != "auto" else "large" if len(visited) == 51 else "small"
            mean, cov = output(ancestral, denoise, process, visited, shape, variance=variance)
            moments = [recursion(table, s2, visited, kind) for s2 in spectrum.tolist()]
            over_m, var = torch.tensor(moments, dtype=torch.float64).unbind(1)
            yield relative_to_size(mean, (axes * over_m) @ axes.mT @ m.flatten())
            yield relative_to_size(cov, (axes * var) @ axes.mT)


def _ddim_variance(steps: int) -> float:
    """Output variance of `ddim`, eta = 0, for data N(0.3, 0.5^2) and this many evenly spaced steps."""
    denoise = gaussian_denoise(exact.linear(), 0.5)
    return output(ddim, denoise, Process(linear()), times(linear(), steps), eta=0.0)[1].item()


@check(1e-10, "Song et al. 2021, eq. 12; Pierret & Galerne 2025")
def _ddim_moments() -> Iterator[float]:
    """Output variance s^2 / v_T prod cos^2( theta_t - theta_s ), theta = atan2( sqrt(1 - abar), s sqrt(abar) ).

    variance of the output of `ddim` over 10, 50, 100, 500 and 1000 steps, N(0.3, 0.5^2), with the product; relative
    """
    table, s = exact.linear(), 0.5
    v_T = table.abar(1000) * s**2 + table.var(1000)
    for steps, excess in ((10, -0.452534), (50, -0.111118), (100, -0.057364), (500, -0.011907), (1000, -0.006010)):
        visited = [1000 * (steps - i) // steps for i in range(steps + 1)]
        angles = [math.atan2(table.sigma(t), s * table.alpha(t)) for t in visited]
        closed = s**2 / v_T * math.prod(math.cos(a - b) ** 2 for a, b in pairwise(angles))
        found = _ddim_variance(steps)
        require(abs(found / s**2 - 1 - excess) < 6e-7, f"variance / s^2 - 1 is {found / s**2 - 1:.6f}, not {excess}")
        yield relative(found, closed)


@check(0.05, "Song et al. 2021, sec. 4.3")
def _ddim_order() -> Iterator[float]:
    """Twice the steps, half the error: DDIM is of first order.

    log2 of the ratio of the variance errors at 500 and 1000 steps, which is 0.986, with 1; absolute
    """
    half, full = (_ddim_variance(steps) / 0.25 - 1 for steps in (500, 1000))
    order = math.log2(half / full)
    require(f"{order:.3f}" == "0.986", f"the order is {order:.3f}, not 0.986")
    yield abs(order - 1)


@check(1e-10, "Song et al. 2021, eqs. 12 and 16")
def _ddim_eta_one() -> Iterator[float]:
    """DDIM with eta = 1 is ancestral sampling with beta~; for any eta its step's variance is eta^2 beta~.

    every state of `ddim` and `ancestral` over 7 and 100 steps, and single steps at eta = 0, 0.5 and 1 with decimals;
    relative
    """
    table, process = exact.linear(), Process(linear())
    x, one = normal("x_T", 2, 3, 4, 4), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for steps in (7, 100):
        chain = smooth_denoise(table), process, x, times(linear(), steps), lambda t: normal(f"noise {t}", *x.shape)
        steps_of_both = zip(ddim(*chain, 1.0), ancestral(*chain, "small"), strict=True)
        yield from (relative_to_size(a.x, b.x) for a, b in steps_of_both)
    for t, s in ((1000, 800), (500, 499), (20, 3), (2, 1)):
        for eta in (0.0, 0.5, 1.0):
            made = next(ddim(lambda x_t, t: Prediction(-2 * one, one), process, one, [t, s, 0], lambda t: one, eta))
            var = eta**2 * table.posterior(t, s)[2]
            eps = (1 + 2 * table.alpha(t)) / table.sigma(t)
            expected = -2 * table.alpha(s) + math.sqrt(table.var(s) - var) * eps + math.sqrt(var)
            yield relative(made.x, expected * one)


@check(1e-11, "Ho et al. 2020, eq. 7 and sec. 4")
def _clamp_first() -> Iterator[float]:
    """x_0_hat is clamped before the mean is made of it, and DDIM's eps is that of the clamped one.

    a step of `ancestral`, `ddim` and `draw` from x_t = 4 where x_0_hat = 5, -5 and 0.5, with decimals; relative
    """
    table, process = exact.linear(), Process(linear())
    x, estimate = torch.full((1, 3, 1, 1), 4.0, dtype=torch.float64), torch.tensor([5.0, -5.0, 0.5]).double()
    clamped = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64).view_as(x)
    far = denoising(table, lambda x_t, t: estimate.view_as(x))
    for t, s in ((500, 499), (500, 250), (1000, 500)):
        at_x_t, at_x_0, small = table.posterior(t, s)
        by_ancestral = next(ancestral(clipped(far), process, x, [t, s, 0], lambda t: torch.ones_like(x), "small"))
        by_ddim = next(ddim(clipped(far), process, x, [t, s, 0], lambda t: torch.ones_like(x)))
        moved = table.alpha(s) * clamped + table.sigma(s) * (4 - table.alpha(t) * clamped) / table.sigma(t)
        yield relative(by_ancestral.x, 4 * at_x_t + at_x_0 * clamped + math.sqrt(small))
        yield from [relative(by_ddim.x, moved), relative(by_ancestral.x0, clamped), relative(by_ddim.x0, clamped)]
    indices = torch.zeros(1, dtype=torch.int64)
    drawn = next(draw(far, process, x, indices, Chain(sampler="ddim", steps=2, clip=True)))
    yield relative(drawn.x, moved)


@check(1e-12, "Ho et al. 2020, algorithm 2, line 3")
def _last_step() -> Iterator[float]:
    """The step to t = 0 adds no noise: the image is x_0_hat.

    the output of `ancestral` (3 variances) and `ddim` (3 eta), offered noise of 10^6, with x_0_hat; absolute
    """
    x, denoise = normal("x_T", 2, 3, 2, 2), smooth_denoise(exact.linear())

    def learned(x_t: Tensor, t: int | Tensor) -> Prediction:
        return replace(denoise(x_t, t), var_fraction=torch.full_like(x_t, 0.7))

    for visited in ([1, 0], [300, 0]):
        chain = Process(linear()), x, visited, lambda t: torch.full_like(x, 1e6)
        runs = [ancestral(learned, *chain, variance) for variance in ("large", "small", "learned")]
        for run in [*runs, *(ddim(denoise, *chain, eta) for eta in (0.0, 0.5, 1.0))]:
            *_, end = run
            require(end.t == 0, f"the chain ends at t = {end.t}")
            yield from [absolute(end.x, end.x0), relative_to_size(end.x0, denoise(x, visited[0]).x0)]


@check(1e-11, "Nichol & Dhariwal 2021, eq. 15")
def _learned_sampling() -> Iterator[float]:
    """A learned step's standard deviation is exp( ( v log beta + (1 - v) log beta~ ) / 2 ), on strides too.

    single steps of `ancestral` for a network with v = -0.2..1.2 with decimals; relative
    """
    table, process = exact.linear(), Process(linear())
    v = torch.tensor([0.0, 0.3, 0.5, 1.0, -0.2, 1.2], dtype=torch.float64).view(6, 1, 1, 1)
    x = torch.zeros_like(v)
    net = Network(torch.cat((x, 2 * v - 1), 1))
    for t, s in ((2, 1), (20, 3), (500, 499), (1000, 600)):
        denoise = Labelled(Denoiser(net, process, PARAMETERIZATIONS["x0"], learned_variance=True), None)
        log_small, log_large = math.log(table.posterior(t, s)[2]), math.log(table.beta(t, s))
        std = torch.exp(0.5 * (v * log_large + (1 - v) * log_small))
        for variance in ("learned", "auto"):
            made = next(ancestral(denoise, process, x, [t, s, 0], lambda t: torch.ones_like(x), variance))
            yield relative(made.x, std)
