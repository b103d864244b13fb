"""DDIM against the ancestral chain, the closed form of Gaussian data, and diffusers."""

import math
from itertools import pairwise

import pytest
import torch
from known import PROCESS, denoise_of, gaussian_denoise

from unstir.chain import Chain
from unstir.diffusion.denoiser import Prediction, clipped
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.errors import UserError
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, times

GENERATOR = torch.Generator().manual_seed(0)
X_T = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=GENERATOR)
NOISES = {t: torch.randn(X_T.shape, dtype=torch.float64, generator=GENERATOR) for t in range(1, 1001)}


def last(steps):
    *_, end = steps
    return end.x


@pytest.mark.parametrize("process", [PROCESS, Process(cosine())], ids=["linear", "cosine"])
@pytest.mark.parametrize("steps", [7, 1000])
def test_eta_one_is_the_ancestral_chain_with_small_variance(process, steps):
    denoise, visited = clipped(denoise_of(process)), times(process.schedule, steps)
    ours = last(ddim(denoise, process, X_T, visited, NOISES.__getitem__, eta=1.0))
    theirs = last(ancestral(denoise, process, X_T, visited, NOISES.__getitem__, "small"))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def gain(process, std, visited):
    """Output variance over std^2 for data N(m, std^2): eta = 0 is affine in the starting noise alone."""
    denoise, zero = gaussian_denoise(process, 0.3, std), torch.zeros(1, dtype=torch.float64)
    quiet = lambda t: zero
    low, high = (last(ddim(denoise, process, zero + x, visited, quiet)).item() for x in (0.0, 1.0))
    return (high - low) ** 2 / std**2 - 1


@pytest.mark.parametrize(
    ("steps", "excess"), [(10, -0.452534), (50, -0.111118), (100, -0.057364), (500, -0.011907), (1000, -0.006010)]
)
def test_output_variance_of_half_unit_data_has_the_exact_value(steps, excess):
    assert gain(PROCESS, 0.5, times(PROCESS.schedule, steps)) == pytest.approx(excess, abs=5e-7)
    angle = lambda t: math.atan2(PROCESS.schedule.sigma(t), 0.5 * PROCESS.schedule.alpha(t))
    visited = times(PROCESS.schedule, steps)
    cosines = math.prod(math.cos(angle(t) - angle(s)) ** 2 for t, s in pairwise(visited))
    v = PROCESS.schedule.abar(1000) * 0.25 + PROCESS.schedule.sigma(1000) ** 2
    assert gain(PROCESS, 0.5, visited) + 1 == pytest.approx(cosines / v, rel=1e-10, abs=0)


def test_the_error_falls_with_order_one():
    half, full = (gain(PROCESS, 0.5, times(PROCESS.schedule, steps)) for steps in (500, 1000))
    assert math.log2(half / full) == pytest.approx(0.986, abs=5e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_step_equals_diffusers_with_our_tables(eta):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(1000, clip_sample=True, timestep_spacing="trailing", set_alpha_to_one=True)
    theirs.alphas_cumprod = PROCESS.schedule.log_abar[1:].exp()
    theirs.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(50)
    visited, denoise = times(PROCESS.schedule, 50), clipped(denoise_of(PROCESS))
    x, worst = X_T, 0.0
    for t, step in zip(visited[:-1], ddim(denoise, PROCESS, X_T, visited, NOISES.__getitem__, eta), strict=True):
        raw = denoise(x, t).raw
        stepped = theirs.step(raw, t - 1, x, eta=eta, use_clipped_model_output=True, variance_noise=NOISES[t])
        worst = max(worst, ((step.x - stepped.prev_sample).abs() / stepped.prev_sample.abs().clamp(min=1e-3)).max())
        x = step.x
    assert worst < 1e-10


def test_the_clamp_moves_the_noise_too():
    far = lambda x, t: Prediction(x * 0 + 5, x)
    x = torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64)
    step = next(ddim(clipped(far), PROCESS, x, [500, 250, 0], NOISES.__getitem__))
    alpha, sigma = PROCESS.schedule.alpha, PROCESS.schedule.sigma
    assert step.x.item() == pytest.approx(alpha(250) + sigma(250) * (0.2 - alpha(500)) / sigma(500), rel=1e-12, abs=0)


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match=r"eta=1.5 is outside 0..1"):
        list(ddim(denoise_of(PROCESS), PROCESS, X_T, [5, 0], NOISES.__getitem__, eta=1.5))
    with pytest.raises(ValueError, match="fall strictly"):
        list(ddim(denoise_of(PROCESS), PROCESS, X_T, [5, 1], NOISES.__getitem__))
    with pytest.raises(ValueError, match="option of ddim, not of ancestral"):
        Chain(eta=0.5)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Chain(sampler="ddim", eta=-0.5)
