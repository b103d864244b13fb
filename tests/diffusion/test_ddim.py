"""DDIM against diffusers; closed forms and the ancestral chain are rows of `unstir verify` (ddim-*, clamp-first)."""

import pytest
import torch
from known import PROCESS, denoise_of

from refusals import refusing
from unstir.diffusion.denoiser import clipped
from unstir.diffusion.samplers.ddim import ddim
from unstir.theory.schedule import times

GENERATOR = torch.Generator().manual_seed(0)
X_T = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=GENERATOR)
NOISES = {t: torch.randn(X_T.shape, dtype=torch.float64, generator=GENERATOR) for t in range(1, 1001)}


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


def test_a_randomness_outside_0_to_1_is_refused():
    with refusing("eta", 1.5):
        list(ddim(denoise_of(PROCESS), PROCESS, X_T, [5, 0], NOISES.__getitem__, eta=1.5))
