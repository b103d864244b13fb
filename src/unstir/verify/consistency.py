"""The ends of paths: how they are found, what the loss of them asks for, and the sampler of a network that knows them.

All on Gaussian data, where each path and its end are known.
"""

import math
from collections.abc import Iterator

import torch

from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.paths import SMOOTH, follow, path_loss
from unstir.diffusion.samplers.consistency import consistency
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, require
from unstir.verify.exact import M, Network, Table, denoising, gaussian_denoise, normal, output

S = 0.5  # the standard deviation of the data
_TIMES = (1, 10, 100, 500, 1000)
_VISITED = tuple(range(1000, -1, -10))


def _end(table: Table, t: int) -> float:
    """The slope of the end of the path through x_t: s / sqrt( v_t )."""
    return S / math.sqrt(table.abar(t) * S**2 + table.var(t))


@check(1e-12, "Song et al. 2023, sec. 3")
def _consistency_boundary() -> Iterator[float]:
    """The estimate at t = 0 is x_0, whatever the network says: c_skip(0) = 1 and c_out(0) = 0. At other times the loss
    is the distance of the estimate from the end of the path, over sigma_t.

    x_0_hat of eps and v at t = 0 with x_0; `path_loss` with its formula; relative
    """
    table, x_t, raw, end = exact.linear(), *(normal(name, 5, 3, 2, 2) for name in ("x_t", "output", "end"))
    process, t = Process(linear()), torch.tensor(_TIMES)
    for kind in ("eps", "v"):
        yield relative(PARAMETERIZATIONS[kind].x0(process.schedule, x_t, 0, raw), x_t)
    distance = ((raw - end).square().mean((1, 2, 3)) + SMOOTH**2).sqrt() - SMOOTH
    out = path_loss(Denoiser(Network(raw), process, PARAMETERIZATIONS["x0"]), x_t, t, end)
    yield relative(out.total, distance / table.tensor(table.sigma, _TIMES))


@check(0.01, "Song et al. 2023, sec. 3; Luhman & Luhman 2021")
def _path_ends() -> Iterator[float]:
    """Each point on a path has the same end, m + s / sqrt( v_t ) (x_t - alpha_t m), and 100 visits of a path find it.

    states and ends of `follow` for data N(0.3, 0.5^2), linear and cosine, with the end of the path through x_T;
    absolute
    """
    x_T = normal("x_T", 8, 1, 1, 1)
    for table, process in ((exact.linear(), Process(linear())), (exact.cosine(), Process(cosine()))):
        denoise = gaussian_denoise(table, S)
        states, ends = follow(denoise, process, x_T, _VISITED)
        require(len(states) == len(_VISITED) - 1, "there is no state at each time")
        require(torch.equal(ends, denoise(states[-1], _VISITED[-2]).x0), "the end is not the last visit's estimate")
        due = [M + _end(table, t) * (x - table.alpha(t) * M) for t, x in zip(_VISITED, states, strict=False)]
        yield absolute(torch.stack(due), due[0].expand_as(states))
        yield absolute(ends, due[0])


@check(0.01, "Luhman & Luhman 2021; Song & Dhariwal 2024")
def _path_learned() -> Iterator[float]:
    """What the loss learns from followed paths is the map to their ends, at every fifth time that they visit.

    slopes and offsets of a network that is affine at each time and predicts v, after Newton steps (L-BFGS) on
    `path_loss` of 64 paths, with s / sqrt( v_t ) and m - alpha_t m s / sqrt( v_t ); absolute
    """
    table, process, x_T = exact.linear(), Process(linear()), normal("x_T", 64, 1, 1, 1)
    states, ends = follow(gaussian_denoise(table, S), process, x_T, _VISITED)
    visited = _VISITED[:-1:5]
    x_t, end, t = states[::5].flatten(0, 1), ends.repeat(20, 1, 1, 1), torch.tensor(visited).repeat_interleave(64)
    slopes, offsets = (torch.zeros(1000, 1, 1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    net = Network(lambda x, time: slopes[time] * x + offsets[time])
    denoiser = Denoiser(net, process, PARAMETERIZATIONS["v"])
    solver = torch.optim.LBFGS([slopes, offsets], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        total = path_loss(denoiser, x_t, t, end).total.mean()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(closure)  # type: ignore[no-untyped-call]
    for time in visited:
        zero, one = (denoiser(torch.full((1, 1, 1, 1), x, dtype=torch.float64), time).x0.item() for x in (0.0, 1.0))
        slope = _end(table, time)
        yield from [absolute(one - zero, slope), absolute(zero, M - slope * table.alpha(time) * M)]


@check(1e-11, "Song et al. 2023, algorithm 1")
def _consistency_moments() -> Iterator[float]:
    """From the ends of paths each call makes the data again: the variance is s^2 / v_s (alpha_s^2 V + sigma_s^2) where
    the image before had V.

    mean and variance of the output of `consistency` in 1, 2 and 4 calls, N(0.3, 0.5^2), with the recursion; relative
    """
    table = exact.linear()
    ends = denoising(table, lambda x_t, t: M + _end(table, t) * (x_t - table.alpha(t) * M))
    for visited in ([1000, 0], [1000, 250, 0], [1000, 562, 250, 62, 0], [1000, 1, 0]):
        mean, cov = output(consistency, ends, Process(linear()), visited)
        off, var = -table.alpha(1000) * M * _end(table, 1000), _end(table, 1000) ** 2
        for s in visited[1:-1]:
            off *= table.alpha(s) * _end(table, s)
            var = (table.abar(s) * var + table.var(s)) * _end(table, s) ** 2
        yield from [relative(mean.item(), M + off), relative(cov.item(), var)]
