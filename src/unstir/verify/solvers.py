"""The fast samplers, what wraps a denoiser, and the noise of each image: on known data, by plain arithmetic."""

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from unstir.chain import SAMPLERS, Chain
from unstir.diffusion.denoiser import Denoise, Prediction, thresholded
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.guidance import guided
from unstir.diffusion.samplers import function_of
from unstir.diffusion.samplers.dpmpp import dpmpp_2m_sde
from unstir.theory.process import Process
from unstir.theory.schedule import linear, times
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, relative_to_size, require
from unstir.verify.exact import M, gaussian_denoise, normal, output, smooth_denoise

ORDERS = {"ddim": 1, "dpmpp_2m": 2, "dpmpp_3m": 2, "heun": 2, "ipndm": 2, "pndm": 2, "unipc": 3}
"""Of the solvers of the ODE, each from its first step on; 3M, iPNDM and PNDM begin with steps of lower order."""


@check(0.2, "Karras et al. 2022; Lu et al. 2022; Liu et al. 2022; Zhang & Chen 2023; Zhao et al. 2023")
def _solver_orders() -> Iterator[float]:
    """Twice the steps, 2^-p of the error: p is 1 for DDIM, 3 for UniPC and 2 for the other solvers of the ODE.

    log2 of the ratio of the errors at t = 200 after 100 and 200 steps from t = 1000, N(0.3, 0.5^2), with p; absolute
    """
    table, s, x_T = exact.linear(), 0.5, torch.tensor([1.3], dtype=torch.float64)
    std = {t: math.sqrt(table.abar(t) * s**2 + table.var(t)) for t in (1000, 200)}
    solution = table.alpha(200) * M + std[200] / std[1000] * (x_T - table.alpha(1000) * M)
    for name, order in ORDERS.items():
        off = []
        for steps in (100, 200):
            visited = [*(1000 - 800 * i // steps for i in range(steps + 1)), 0]
            chain = function_of(name)(gaussian_denoise(table, s), Process(linear()), x_T, visited, torch.zeros_like)
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
            found, expected = steered(x, t), gaussian_denoise(table, 0.5, mean)(x, t)
            yield from [relative_to_size(found.x0, expected.x0), relative_to_size(found.raw, expected.raw)]
            yield from [relative_to_size(batch.x0[i], expected.x0[i]), relative_to_size(batch.raw[i], expected.raw[i])]


@check(1e-12, "Saharia et al. 2022, sec. 2.3")
def _dynamic_threshold() -> Iterator[float]:
    """x_0_hat is clamped to [-q, q] and divided by q, the quantile of its image's absolute values, at least 1.

    `thresholded` on 4 images of different size at 3 quantiles with sorted values; absolute
    """
    x0 = normal("estimates", 4, 3, 1, 43) * torch.tensor([0.125, 1, 4, 32], dtype=torch.float64).view(4, 1, 1, 1)
    for rank in (64, 96, 126):  # of the 129 sizes of an image: quantiles that need no interpolation
        found = thresholded(lambda x_t, t: Prediction(x0, x_t), rank / 128)(x0, 500).x0
        for image, made in zip(x0, found, strict=True):
            limit = max(1.0, sorted(abs(value) for value in image.flatten().tolist())[rank])
            expected = [min(max(value, -limit), limit) / limit for value in image.flatten().tolist()]
            yield absolute(made.flatten(), expected)


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
        whole = images(name, indices)
        for size in (1, 3):
            yield relative(torch.cat([images(name, part) for part in torch.split(indices, size)]), whole)
        require(len(set(map(tuple, whole.flatten(1).tolist()))) == 7, f"{name} draws one image twice")
    taken = _noise_taken(process, denoise, indices[:1], shape).tolist()
    require(len(set(map(tuple, taken))) == len(taken), "one noise serves two steps, or a step and the start")


def _noise_taken(process: Process, denoise: Denoise, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The noise that an image begins with and that each random step of `draw` adds: [K, D], as whole numbers."""
    x = starting_noise(3, indices, shape).double()
    found, t = [x], process.T
    for step in draw(denoise, process, x, indices, Chain("ancestral", 6, variance="small", seed=3)):
        if step.t:
            at_x_t, at_x_0, var = exact.linear().posterior(t, step.t)
            mean = at_x_t * x + at_x_0 * denoise(x, t).x0.clamp(-1, 1)
            found.append((step.x - mean) / math.sqrt(var))
        x, t = step.x, step.t
    return torch.stack([(noise * 1e6).round().flatten() for noise in found])
