"""Few calls along paths: how paths are found, what takes a call along one, what the loss learns, and what comes of it.

All on Gaussian data, where each path is known.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch

from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.paths import SMOOTH, follow, path_loss, targets
from unstir.diffusion.samplers.ddim import ddim
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, require
from unstir.verify.exact import M, Network, Table, denoising, gaussian_denoise, normal, output

S = 0.5  # the standard deviation of the data
_TIMES = (1, 10, 100, 500, 1000)
_VISITED = tuple(range(1000, -1, -10))
_CALLS = (1000, 750, 500, 250, 0)


def _way(table: Table, t: int, s: int) -> tuple[float, float]:
    """Slope and offset of x_s on the path through x_t: alpha_s m + sqrt( v_s / v_t ) (x_t - alpha_t m)."""
    v_t, v_s = (table.abar(u) * S**2 + table.var(u) for u in (t, s))
    slope = math.sqrt(v_s / v_t)
    return slope, (table.alpha(s) - slope * table.alpha(t)) * M


def _target(table: Table, t: int, s: int) -> tuple[float, float]:
    """Slope and offset of the estimate at x_t that takes a step of `ddim` along its path to s."""
    (slope, offset), ratio = _way(table, t, s), table.sigma(s) / table.sigma(t)
    scale = table.alpha(s) - ratio * table.alpha(t)
    return (slope - ratio) / scale, offset / scale


@check(1e-12, "Song & Dhariwal 2024")
def _path_loss() -> Iterator[float]:
    """The loss is the distance of the estimate from the target, over sigma_t.

    `path_loss` with its formula; relative
    """
    table, x_t, raw, target = exact.linear(), *(normal(name, 5, 3, 2, 2) for name in ("x_t", "output", "target"))
    distance = ((raw - target).square().mean((1, 2, 3)) + SMOOTH**2).sqrt() - SMOOTH
    denoiser = Denoiser(Network(raw), Process(linear()), PARAMETERIZATIONS["x0"])
    out = path_loss(denoiser, x_t, torch.tensor(_TIMES), target)
    yield relative(out.total, distance / table.tensor(table.sigma, _TIMES))


@check(0.01, "Song, Sohl-Dickstein et al. 2021, sec. 4.3; Luhman & Luhman 2021")
def _path_states() -> Iterator[float]:
    """On a path (x_t - alpha_t m) / sqrt( v_t ) stays, and 100 visits follow it to its image.

    states of `follow` for data N(0.3, 0.5^2), linear and cosine, with those of the path through x_T; absolute
    """
    x_T = normal("x_T", 8, 1, 1, 1)
    for table, process in ((exact.linear(), Process(linear())), (exact.cosine(), Process(cosine()))):
        states = follow(gaussian_denoise(table, S), process, x_T, _VISITED)
        require(len(states) == len(_VISITED), "there is no state at each time")
        for x, t in zip(states, _VISITED, strict=True):
            slope, offset = _way(table, 1000, t)
            yield absolute(x, slope * x_T + offset)


@check(1e-11, "Salimans & Ho 2022, appendix G")
def _path_targets() -> Iterator[float]:
    """Steps of `ddim` with the targets as estimates go from each state to the next, whatever these are.

    states of `ddim` with the given ones, drawn at random; relative
    """
    process, states = Process(linear()), normal("states", 5, 3, 1, 2, 2)
    estimate = dict(zip(_CALLS, targets(process, states, _CALLS), strict=False))
    denoise = denoising(exact.linear(), lambda x_t, t: estimate[t])
    for step, due in zip(ddim(denoise, process, states[0], _CALLS, lambda _: states), states[1:], strict=True):
        yield relative(step.x, due)


@check(0.01, "Salimans & Ho 2022, appendix G; Song & Dhariwal 2024")
def _path_learned() -> Iterator[float]:
    """What the loss learns from followed paths is, at the time of each call, the line of its targets.

    slopes and offsets of a network that is affine at each time and predicts v, after Newton steps (L-BFGS) on
    `path_loss` of 64 paths and four calls, with those of the targets in closed form; absolute
    """
    table, process, x_T = exact.linear(), Process(linear()), normal("x_T", 64, 1, 1, 1)
    states = follow(gaussian_denoise(table, S), process, x_T, _VISITED)[::25]
    x_t, target = states[:-1].flatten(0, 1), targets(process, states, _CALLS).flatten(0, 1)
    t = torch.tensor(_CALLS[:-1]).repeat_interleave(64)
    slopes, offsets = (torch.zeros(1000, 1, 1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    net = Network(lambda x, time: slopes[time] * x + offsets[time])
    denoiser = Denoiser(net, process, PARAMETERIZATIONS["v"])
    solver = torch.optim.LBFGS([slopes, offsets], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        total = path_loss(denoiser, x_t, t, target).total.mean()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(closure)  # type: ignore[no-untyped-call]
    for time, s in pairwise(_CALLS):
        zero, one = (denoiser(torch.full((1, 1, 1, 1), x, dtype=torch.float64), time).x0.item() for x in (0.0, 1.0))
        slope, offset = _target(table, time, s)
        yield from [absolute(one - zero, slope), absolute(zero, offset)]


@check(1e-11, "Salimans & Ho 2022, appendix G")
def _path_moments() -> Iterator[float]:
    """From the targets of exact paths any number of calls makes what the whole path makes: sqrt( v_0 / v_T ) of x_T.

    mean and variance of the output of `ddim` in 1, 2 and 4 calls, N(0.3, 0.5^2), with those of the path; relative
    """
    table = exact.linear()
    slope, offset = _way(table, 1000, 0)
    for visited in ([1000, 0], [1000, 500, 0], [*_CALLS], [1000, 1, 0]):
        after = dict(pairwise(visited))

        def towards(x_t: torch.Tensor, t: int, after: dict[int, int] = after) -> torch.Tensor:
            by, plus = _target(table, t, after[t])
            return by * x_t + plus

        mean, cov = output(ddim, denoising(table, towards), Process(linear()), visited)
        yield from [relative(mean.item(), offset), relative(cov.item(), slope**2)]
