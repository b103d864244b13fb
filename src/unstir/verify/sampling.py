"""Samplers on data whose ideal denoiser is known, and what wraps a denoiser, compared with exact results."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise

import torch
from torch import Tensor

from unstir.chain import SAMPLERS, Chain
from unstir.diffusion.denoiser import Conditioned, Denoise, Denoiser, Prediction, clipped, thresholded
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.guidance import guided
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.diffusion.samplers.dpmpp import dpmpp_2m_sde
from unstir.parts import find
from unstir.theory.oracle import GaussianData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear, times
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, relative_to_size, require
from unstir.verify.exact import M, Network, Table, denoising, float64, gaussian_denoise, normal, output, smooth_denoise

_ALL = range(1000, -1, -1)


def _recursion(table: Table, s2: float, visited: Sequence[int], variance: str) -> tuple[float, float]:
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
        mean, cov = output(ancestral, gaussian_denoise(table, s), Process(linear()), _ALL, variance=variance)
        over_m, var = _recursion(table, s**2, _ALL, variance)
        yield from [relative(mean.item(), over_m * M), absolute(cov.item(), var)]
        variances[s, variance] = cov.item()
    for variance, excess in (("large", 0.00300830), ("small", -0.01549915)):
        got = variances[0.5, variance] / 0.25 - 1
        require(abs(got - excess) < 5e-9, f"variance / s^2 - 1 with {variance} is {got:.8f}, not {excess:.8f}")
    point, _ = output(ancestral, gaussian_denoise(table, 0.0), Process(linear()), _ALL, variance="small")
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
            moments = [_recursion(table, s2, visited, kind) for s2 in spectrum.tolist()]
            over_m, var = float64(moments).unbind(1)
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
        got = _ddim_variance(steps)
        require(abs(got / s**2 - 1 - excess) < 6e-7, f"variance / s^2 - 1 is {got / s**2 - 1:.6f}, not {excess}")
        yield relative(got, closed)


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
            out = next(ddim(lambda x_t, t: Prediction(-2 * one, one), process, one, [t, s, 0], lambda t: one, eta))
            var = eta**2 * table.posterior(t, s)[2]
            eps = (1 + 2 * table.alpha(t)) / table.sigma(t)
            expected = -2 * table.alpha(s) + math.sqrt(table.var(s) - var) * eps + math.sqrt(var)
            yield relative(out.x, expected * one)


@check(1e-11, "Ho et al. 2020, eq. 7 and sec. 4")
def _clamp_first() -> Iterator[float]:
    """x_0_hat is clamped before the mean is made of it, and DDIM's eps is that of the clamped one.

    a step of `ancestral`, `ddim` and `draw` from x_t = 4 where x_0_hat = 5, -5 and 0.5, with decimals; relative
    """
    table, process = exact.linear(), Process(linear())
    x, estimate = torch.full((1, 3, 1, 1), 4.0, dtype=torch.float64), float64([5.0, -5.0, 0.5])
    clamped = float64([1.0, -1.0, 0.5]).view_as(x)
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
    v = float64([0.0, 0.3, 0.5, 1.0, -0.2, 1.2]).view(6, 1, 1, 1)
    x = torch.zeros_like(v)
    net = Network(torch.cat((x, 2 * v - 1), 1))
    for t, s in ((2, 1), (20, 3), (500, 499), (1000, 600)):
        denoise = Conditioned(Denoiser(net, process, PARAMETERIZATIONS["x0"], learned_variance=True), None)
        log_small, log_large = math.log(table.posterior(t, s)[2]), math.log(table.beta(t, s))
        std = torch.exp(0.5 * (v * log_large + (1 - v) * log_small))
        for variance in ("learned", "auto"):
            out = next(ancestral(denoise, process, x, [t, s, 0], lambda t: torch.ones_like(x), variance))
            yield relative(out.x, std)


ORDERS = {"ddim": 1, "dpmpp_2m": 2, "dpmpp_3m": 2, "heun": 2, "ipndm": 2, "pndm": 2, "unipc": 3}
"""Of the solvers of the ODE, each from its first step on; 3M, iPNDM and PNDM begin with steps of lower order."""


@check(0.2, "Karras et al. 2022; Lu et al. 2022; Liu et al. 2022; Zhang & Chen 2023; Zhao et al. 2023")
def _solver_orders() -> Iterator[float]:
    """Twice the steps, 2^-p of the error: p is 1 for DDIM, 3 for UniPC and 2 for the other solvers of the ODE.

    log2 of the ratio of the errors at t = 200 after 100 and 200 steps from t = 1000, N(0.3, 0.5^2), with p; absolute
    """
    table, s, x_T = exact.linear(), 0.5, float64([1.3])
    std = {t: math.sqrt(table.abar(t) * s**2 + table.var(t)) for t in (1000, 200)}
    solution = table.alpha(200) * M + std[200] / std[1000] * (x_T - table.alpha(1000) * M)
    for name, order in ORDERS.items():
        off = []
        for steps in (100, 200):
            visited = [*(1000 - 800 * i // steps for i in range(steps + 1)), 0]
            chain = find("sampler", name)(gaussian_denoise(table, s), Process(linear()), x_T, visited, torch.zeros_like)
            *_, end = islice(chain, steps)
            require(end.t == 200, f"step {steps} of {name} ends at t = {end.t}")
            off.append(absolute(end.x, solution))
        yield abs(math.log2(off[0] / off[1]) - order)


@check(0.2, "Lu et al. 2022b, sec. 5")
def _sde_moments() -> Iterator[float]:
    """DPM-Solver++ on the reverse SDE: the mean is the data's, the variance nears it with the first order.

    log2 of the ratio of the errors of the output's variance at 200 and 400 steps, N(0.3, 0.5^2), with 1; absolute
    """
    table, process, off = exact.linear(), Process(linear()), []
    for steps in (200, 400):
        mean, cov = output(dpmpp_2m_sde, gaussian_denoise(table, 0.5), process, times(linear(), steps))
        require(abs(mean.item() - M) < 1e-5, f"the mean is {mean.item():.6f}, not {M}")
        off.append(abs(cov.item() / 0.25 - 1))
    yield abs(math.log2(off[0] / off[1]) - 1)


@check(1e-12, "Ho & Salimans 2022, eq. 6; Kynkaanniemi et al. 2024")
def _guidance_gaussian() -> Iterator[float]:
    """Between two Gaussians of one variance, guidance from m_u to m_c is the Gaussian of mean m_u + w (m_c - m_u);
    outside its interval the conditional one is alone.

    x_0_hat and eps_hat of `guided` at 4 scales and 7 times, alone and in one batch, with those of that Gaussian;
    relative to the largest element
    """
    table, x, visited = exact.linear(), normal("guided x_t", 7, 1, 1, 1), (1, 299, 300, 500, 700, 701, 1000)
    strong, weak = (gaussian_denoise(table, 0.5, m) for m in (0.8, M))
    for scale in (0.0, 0.5, 1.0, 2.8):
        steered = guided(strong, weak, scale, 300, 700)
        batch = steered(x, torch.tensor(visited))
        for i, t in enumerate(visited):
            mean = M + (scale if 300 <= t <= 700 else 1.0) * (0.8 - M)
            got, expected = steered(x, t), gaussian_denoise(table, 0.5, mean)(x, t)
            yield from [relative_to_size(got.x0, expected.x0), relative_to_size(got.raw, expected.raw)]
            yield from [relative_to_size(batch.x0[i], expected.x0[i]), relative_to_size(batch.raw[i], expected.raw[i])]


@check(1e-12, "Saharia et al. 2022, sec. 2.3")
def _dynamic_threshold() -> Iterator[float]:
    """x_0_hat is clamped to [-q, q] and divided by q, the quantile of its image's absolute values, at least 1.

    `thresholded` on 4 images of different size at 3 quantiles with sorted values; absolute
    """
    x0 = normal("estimates", 4, 3, 1, 43) * float64([0.125, 1, 4, 32]).view(4, 1, 1, 1)
    for rank in (64, 96, 126):  # of the 129 sizes of an image: quantiles that need no interpolation
        got = thresholded(lambda x_t, t: Prediction(x0, x_t), rank / 128)(x0, 500).x0
        for image, out in zip(x0, got, strict=True):
            limit = max(1.0, sorted(abs(value) for value in image.flatten().tolist())[rank])
            expected = [min(max(value, -limit), limit) / limit for value in image.flatten().tolist()]
            yield absolute(out.flatten(), expected)


@check(1e-12, "Lin et al. 2024, table 2; Song et al. 2021, sec. 4.2; Lu et al. 2022")
def _spacings() -> Iterator[float]:
    """The times visited: T (K - i) / K, its mirror from 1, T to 1, T (1 - i / K)^2, and even steps of the log-SNR.

    `times` for 10 of 1000 steps with the printed times and with the nearest of the log-SNR in decimals; absolute
    """
    for name, printed in {  # the first three as Lin et al. 2024 print them, the last 10 i^2
        "trailing": [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0],
        "leading": [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0],
        "linspace": [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0],
        "quadratic": [1000, 810, 640, 490, 360, 250, 160, 90, 40, 10, 0],
    }.items():
        yield absolute(times(linear(), 10, name), printed)
    log_snr = {t: math.log(exact.linear().snr(t)) for t in range(1, 1001)}
    wanted = [log_snr[1000] + (log_snr[1] - log_snr[1000]) * i / 9 for i in range(10)]
    nearest = [min(log_snr, key=lambda t: abs(log_snr[t] - value)) for value in wanted]
    yield absolute(times(linear(), 10, "log_snr"), [*dict.fromkeys(nearest), 0])


@check(1e-12, "this package, randomness")
def _images_alone() -> Iterator[float]:
    """An image is a function of its seed and number: not of its batch, and no noise is used twice.

    7 images of `draw` by each of the samplers, with the same in batches of 1 and of 3; relative
    """
    process, denoise = Process(linear()), smooth_denoise(exact.linear())
    indices, shape = torch.arange(7), (1, 4, 4)

    def images(name: str, chosen: Tensor) -> Tensor:
        *_, end = draw(denoise, process, starting_noise(3, chosen, shape).double(), chosen, Chain(name, 6, seed=3))
        return end.x

    for name in SAMPLERS:
        together = images(name, indices)
        for size in (1, 3):
            yield relative(torch.cat([images(name, part) for part in torch.split(indices, size)]), together)
        require(len(set(map(tuple, together.flatten(1).tolist()))) == 7, f"{name} draws one image twice")
    taken = _noise_taken(process, denoise, indices[:1], shape).tolist()
    require(len(set(map(tuple, taken))) == len(taken), "one noise serves two steps, or a step and the start")


def _noise_taken(process: Process, denoise: Denoise, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The noise that an image begins with and that each random step of `draw` adds: [K, D], as whole numbers."""
    x = starting_noise(3, indices, shape).double()
    got, t = [x], process.T
    for step in draw(denoise, process, x, indices, Chain("ancestral", 6, variance="small", seed=3)):
        if step.t:
            at_x_t, at_x_0, var = exact.linear().posterior(t, step.t)
            mean = at_x_t * x + at_x_0 * denoise(x, t).x0.clamp(-1, 1)
            got.append((step.x - mean) / math.sqrt(var))
        x, t = step.x, step.t
    return torch.stack([(noise * 1e6).round().flatten() for noise in got])
