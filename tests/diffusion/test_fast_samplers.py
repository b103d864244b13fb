"""Fast samplers: step by step against diffusers, their order on known data, and their ends."""

import math
from itertools import islice, pairwise

import pytest
import torch
from known import PROCESS, denoise_of, gaussian_denoise

from unstir.diffusion.samplers import ddim, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, heun, ipndm, unipc
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, times

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
GENERATOR = torch.Generator().manual_seed(0)
X_T = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=GENERATOR)
NOISES = {t: torch.randn(X_T.shape, dtype=torch.float64, generator=GENERATOR) for t in range(1, 1001)}
QUIET = lambda t: torch.zeros(1, dtype=torch.float64)
DETERMINISTIC = {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "dpmpp_3m": dpmpp_3m, "heun": heun, "unipc": unipc, "ipndm": ipndm}


def with_our_sigmas(scheduler, process, visited):
    """A diffusers scheduler told to visit our times with our float64 noise levels, sigma / alpha."""
    schedule = process.schedule
    scheduler.set_timesteps(len(visited) - 1)
    scheduler.timesteps = torch.tensor([t - 1 for t in visited[:-1]])
    sigmas = [schedule.sigma(t) / schedule.alpha(t) for t in visited]
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    scheduler.num_inference_steps = len(visited) - 1
    return scheduler


def worst_difference(theirs, ours, denoise, visited, **options):
    """The largest relative difference of the states after a step from the same state: their steps round to float32."""
    x, worst = X_T, 0.0
    for t, step in zip(visited[:-1], ours, strict=True):
        ended = theirs.step(denoise(x, t).raw, t - 1, x, **{k: v(t) for k, v in options.items()}).prev_sample
        worst = max(worst, ((step.x - ended).abs() / ended.abs().clamp(min=0.1)).max().item())
        x = step.x
    return worst


@pytest.mark.parametrize("process", [PROCESS, Process(cosine())], ids=["linear", "cosine"])
@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_equals_diffusers(process, steps, order):
    diffusers = pytest.importorskip("diffusers")
    visited, denoise = times(process.schedule, steps), denoise_of(process)
    theirs = diffusers.DPMSolverMultistepScheduler(
        1000, solver_order=order, algorithm_type="dpmsolver++", timestep_spacing="trailing"
    )
    ours = {1: ddim, 2: dpmpp_2m, 3: dpmpp_3m}[order](denoise, process, X_T, visited, QUIET)
    assert worst_difference(with_our_sigmas(theirs, process, visited), ours, denoise, visited) < 1e-6


@pytest.mark.parametrize("steps", [5, 20])
def test_the_sde_solver_equals_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    visited, denoise = times(PROCESS.schedule, steps), denoise_of(PROCESS)
    theirs = diffusers.DPMSolverMultistepScheduler(
        1000, solver_order=2, algorithm_type="sde-dpmsolver++", timestep_spacing="trailing"
    )
    ours = dpmpp_2m_sde(denoise, PROCESS, X_T, visited, NOISES.__getitem__)
    theirs = with_our_sigmas(theirs, PROCESS, visited)
    assert worst_difference(theirs, ours, denoise, visited, variance_noise=NOISES.__getitem__) < 1e-6


@pytest.mark.parametrize("process", [PROCESS, Process(cosine())], ids=["linear", "cosine"])
@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_equals_diffusers(process, steps, order):
    diffusers = pytest.importorskip("diffusers")
    visited, denoise = times(process.schedule, steps), denoise_of(process)
    theirs = diffusers.UniPCMultistepScheduler(
        1000, solver_order=order, solver_type="bh2", timestep_spacing="trailing", final_sigmas_type="zero"
    )
    ours = unipc(denoise, process, X_T, visited, QUIET, order=order)
    assert worst_difference(with_our_sigmas(theirs, process, visited), ours, denoise, visited) < 1e-6


@pytest.mark.parametrize("steps", [5, 20])
def test_heun_equals_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    visited, denoise, schedule = times(PROCESS.schedule, steps), denoise_of(PROCESS), PROCESS.schedule
    theirs = diffusers.HeunDiscreteScheduler(1000, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    ratio = torch.tensor([schedule.sigma(t) / schedule.alpha(t) for t in visited], dtype=torch.float64)
    theirs.sigmas = torch.cat((ratio[:1], ratio[1:-1].repeat_interleave(2), ratio[-1:]))
    seen = [visited[0], *(t for t in visited[1:-1] for _ in range(2))]
    theirs.timesteps = torch.tensor([t - 1 for t in seen], dtype=torch.float64)
    y, worst = X_T / schedule.alpha(visited[0]), 0.0
    ours = heun(denoise, PROCESS, X_T, visited, QUIET)
    for call, t in enumerate(seen):
        x = y * schedule.alpha(t)
        y = theirs.step(denoise(x, t).raw, t - 1, y).prev_sample
        if call % 2 or (t == visited[-2] and call == len(seen) - 1):  # the second call of a step, or Euler's only one
            step = next(ours)
            ended = y * schedule.alpha(step.t)
            worst = max(worst, ((step.x - ended).abs() / ended.abs().clamp(min=1e-2)).max().item())
    assert worst < 1e-6 and next(ours, None) is None


def errors(sampler, steps, **options):
    """The error at t = 200 from t = 1000 on Gaussian data, against the exact solution, for each number of steps."""
    mean, std, schedule = 0.3, 0.5, PROCESS.schedule
    denoise, x_T = gaussian_denoise(PROCESS, mean, std), torch.tensor([1.3], dtype=torch.float64)
    scale = lambda t: math.sqrt(schedule.abar(t) * std**2 + schedule.sigma(t) ** 2)
    exact = schedule.alpha(200) * mean + scale(200) / scale(1000) * (x_T - schedule.alpha(1000) * mean)
    found = []
    for n in steps:
        visited = [*(round(1000 - 800 * i / n) for i in range(n + 1)), 0]
        *_, end = islice(sampler(denoise, PROCESS, x_T, visited, QUIET, **options), n)
        assert end.t == 200
        found.append(abs((end.x - exact).item()))
    return found


ORDERS = {  # sampler: the order it has, in the interval that counts as that
    "ddim": (0.95, 1.05),
    "heun": (1.9, 2.1),
    "dpmpp_2m": (1.9, 2.1),
    "dpmpp_3m": (1.9, 2.1),  # its first step, of first order, sets the limit; the error is 7 times smaller than 2M's
    "unipc": (2.85, 3.2),
    "ipndm": (1.9, 2.1),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_is_what_is_claimed(name):
    found = errors(DETERMINISTIC[name], (50, 100, 200, 400))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(found)]
    low, high = ORDERS[name]
    assert all(low < order < high for order in orders[-2:])
