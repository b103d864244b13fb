"""The forward process, from an image to noise: in single steps, in one step, and the noise itself."""

import math
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from unstir import randomness
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, sigmoid, zero_terminal_snr
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, require
from unstir.verify.exact import normal


@check(1e-12, "Ho et al. 2020, eqs. 2 and 4")
def _one_step_composes() -> Iterator[float]:
    """T steps of variance beta_t in a row are q(x_t | x_0) = N( sqrt(abar_t) x_0, (1 - abar_t) I ).

    Process.one_step, chained, with Process.marginal at every t: mean and variance, linear, cosine and sigmoid; relative
    """
    two = torch.full((1,), 2.0, dtype=torch.float64)
    for schedule in (linear(), cosine(), sigmoid()):
        process, scale, var = Process(schedule), 1.0, 0.0
        for t in range(1, process.T + 1):
            step, closed = process.one_step(two, t), process.marginal(two, t)
            factor = step.mean.item() / 2
            scale, var = scale * factor, var * factor**2 + float(step.var)
            yield from [relative(2 * scale, closed.mean.item()), relative(var, closed.var)]


@check(1e-13, "Ho et al. 2020, eq. 4")
def _abar_exact() -> Iterator[float]:
    """abar_t is the product of 1 - beta_s over all s <= t; abar_1000 = 4.0358297653757e-5.

    abar, 1 - abar and the tables of alpha and sigma at every t with a product in 50-digit decimals, T = 1000, and T =
    500 to beta_T = 0.028; relative
    """
    for ours, table in (
        (linear(), exact.linear()),
        (linear(500, 1e-4, 0.028), exact.linear(500, "1e-4", "0.028")),  # taken literally, not scaled by 1000 / T
    ):
        at = range(1, ours.T + 1)
        alpha, sigma = ours.gather(torch.tensor(at), torch.zeros(ours.T, dtype=torch.float64))
        yield relative([ours.abar(i) for i in at], table.tensor(table.abar, at))
        yield relative([ours.sigma(i) ** 2 for i in at], table.tensor(table.var, at))
        yield relative(alpha, table.tensor(table.alpha, at))
        yield relative(sigma, table.tensor(table.sigma, at))
    yield relative(linear().abar(1000), 4.0358297653757e-5)


@check(2e-11, "Nichol & Dhariwal 2021, eq. 17; Jabri et al. 2022")
def _cosine_clipped() -> Iterator[float]:
    """Cosine and sigmoid: every beta_t <= 0.999, and abar is the product of the clipped betas; cosine's abar_1000 is
    2.43e-9, not 0.

    abar and 1 - abar at every t with the curves in 50-digit decimals, clipped and multiplied up; relative (beta_1 =
    4e-5 is a difference of numbers near 1)
    """
    at = range(1, 1001)
    for ours, table in ((cosine(), exact.cosine()), (sigmoid(), exact.sigmoid())):
        largest = max(ours.beta(t) for t in at)
        require(largest < 0.999 + 1e-12, f"a beta of {largest} is larger than 0.999")
        yield relative([ours.abar(t) for t in at], table.tensor(table.abar, at))
        yield relative([ours.sigma(t) ** 2 for t in at], table.tensor(table.var, at))


@check(1e-12, "Lin et al. 2024, algorithm 1")
def _zero_terminal_snr() -> Iterator[float]:
    """Rescaled, alpha_T = 0 exactly and alpha_1 stays; q(x_{T-1} | x_T, x_0) = N( alpha_{T-1} x_0, sigma_{T-1}^2 I );
    predicting eps is refused, and v is -x_0 at T.

    alpha at every t, the posterior at T and the image back from v with decimals; relative
    """
    ours, table, T = zero_terminal_snr(linear()), exact.linear(), 1000
    require(ours.abar(T) == 0 and ours.sigma(T) == 1, f"abar_T is {ours.abar(T)} and sigma_T {ours.sigma(T)}")
    with suppress(UserError):
        PARAMETERIZATIONS["eps"].check(ours)
        raise AssertionError("predicting eps is not refused")
    x_0, x_T = normal("image", 4, 3, 2, 2), normal("x_T", 4, 3, 2, 2)
    at_T = Process(ours).posterior(x_T, x_0, T, T - 1)
    target = PARAMETERIZATIONS["v"].target(ours, x_0, T, x_T)
    require(torch.equal(target, -x_0), "the target of v at T is not -x_0")
    first, last = table.alpha(1), table.alpha(T)
    expected = [(table.alpha(t) - last) * first / (first - last) for t in range(T)]
    yield relative([ours.alpha(t) for t in range(1, T)], expected[1:])
    yield relative(at_T.mean, ours.alpha(T - 1) * x_0)
    yield relative(at_T.var, 1 - expected[T - 1] ** 2)
    yield relative(PARAMETERIZATIONS["v"].x0(ours, x_T, T, target), x_0)


@check(1e-13, "Ho et al. 2020, eq. 4")
def _diffuse_moments() -> Iterator[float]:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, each image of a batch at its own t.

    coefficients of Process.diffuse at every t, read off with ones and zeros, with decimals; relative. In float32 they
    are the exact ones, rounded once
    """
    process, table = Process(linear()), exact.linear()
    t = torch.tensor([1000, 1, 1, 2, 999, 500, 1000, *range(1, 1001)])
    zeros, ones = (torch.full((len(t), 3, 2, 2), value, dtype=torch.float64) for value in (0.0, 1.0))
    tables = (table.tensor(of, t.tolist()) for of in (table.alpha, table.sigma))
    alpha, sigma = (of.view(-1, 1, 1, 1).expand(ones.shape) for of in tables)
    x_0, eps = normal("x_0", *ones.shape), normal("eps", *ones.shape)
    yield relative(process.diffuse(ones, t, zeros), alpha)
    yield relative(process.diffuse(zeros, t, ones), sigma)
    yield absolute(process.diffuse(x_0, t, eps), alpha * x_0 + sigma * eps)
    for i, time in ((0, 1000), (1, 1), (5, 500)):
        yield relative(process.diffuse(ones[:1], time, zeros[:1]), alpha[i : i + 1])
        yield relative(process.diffuse(zeros[:1], time, ones[:1]), sigma[i : i + 1])
    yield absolute(process.diffuse(zeros.float(), t, ones.float()).double(), sigma.float().double())
    yield absolute(process.diffuse(x_0, 0, eps), x_0)


@check(1.0, "Box & Muller 1958")
def _noise_is_normal() -> Iterator[float]:
    """eps is standard normal, and independent of its neighbours in slot, step, stream and seed.

    260 x 4096 numbers: Kolmogorov-Smirnov distance <= 0.00263 (false alarm 8e-7); mean, variance and 7 correlations
    within 6 standard errors (2e-9 each); largest share of its limit
    """
    slots = torch.arange(260)

    def draw(stream: str = "verify", step: int = 0, seed: int = 0) -> Tensor:
        return randomness.normal(Key(seed, stream, step, slots), (4096,)).double()

    def deviation(products: Tensor, spread: float = 1.0) -> float:
        """| mean | over 6 standard errors: above 1 in two of 10^9 draws."""
        return products.mean().abs().item() * math.sqrt(products.numel()) / spread / 6

    z, n = draw(), 260 * 4096
    yield deviation(z)
    yield deviation(z.square() - 1, math.sqrt(2))
    yield deviation((z[:, :2048].square() - 1) * (z[:, 2048:].square() - 1), 2)  # a pair of one Box-Muller draw
    neighbours = [z[1:] * z[:-1], z[:, 1:] * z[:, :-1], z[:, 2048:] * z[:, :2048]]
    yield from map(deviation, [*neighbours, z * draw(step=1), z * draw(seed=1), z * draw("verified")])
    cdf, rank = torch.special.ndtr(z.flatten().sort().values), torch.arange(n + 1, dtype=torch.float64) / n
    yield torch.maximum((cdf - rank[:-1]).max(), (rank[1:] - cdf).max()).item() / 0.00263
