"""The reverse chain and DDIM against diffusers, step by step; known data are rows of `unstir verify`."""

from dataclasses import replace

import pytest
import torch
from known import PROCESS, denoise_of, gaussian_denoise, network

from unstir.diffusion.denoiser import clipped
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, times
from unstir.verify.exact import output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(
    ("variance", "steps"),  # their fixed_large takes one step's beta on a long stride too, ours the stride's
    [("small", 1000), ("large", 1000), ("small", 50), ("small", 10)],
)
def test_every_step_equals_diffusers_with_our_tables(name, variance, steps):
    diffusers = pytest.importorskip("diffusers")
    process = Process({"linear": linear, "squaredcos_cap_v2": cosine}[name]())
    theirs = diffusers.DDPMScheduler(
        1000, beta_schedule=name, variance_type=f"fixed_{variance}", clip_sample=True, timestep_spacing="trailing"
    )
    table = process.schedule.log_abar[1:].exp()
    theirs.betas = torch.tensor([process.schedule.beta(t) for t in range(1, 1001)], dtype=torch.float64)
    theirs.alphas_cumprod, theirs.alphas = table, 1 - theirs.betas
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(steps)
    visited = times(process.schedule, steps)
    assert theirs.timesteps.tolist() == [t - 1 for t in visited[:-1]]

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    noises = {t: torch.randn(x.shape, dtype=torch.float64, generator=generator) for t in visited[:-1]}
    worst = 0.0
    chain = ancestral(clipped(denoise_of(process)), process, x, visited, noises.__getitem__, variance)
    for t, step in zip(visited[:-1], chain, strict=True):
        diffusers_noise = lambda *_, t=t, **__: noises[t]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", diffusers_noise)
            expected = theirs.step(network(x, t), t - 1, x).prev_sample
        if step.t == 0 and steps < 1000:
            expected = expected - 1e-10 * noises[t]  # their variance floor of 1e-20 adds this noise to the final image
        worst = max(worst, ((step.x - expected).abs() / expected.abs().clamp(min=1e-3)).max().item())
        x = step.x  # both start each step from the same state
    assert worst < 1e-10


@pytest.mark.parametrize("steps", [20, 4])
def test_the_optimal_variance_makes_each_step_the_exact_reverse_one_of_gaussian_data(steps):
    """So two things alone are missing: q(x_T) is not quite N(0, 1), and the last step adds no noise."""
    process, s = Process(linear(20, 0.005, 0.5)), 0.5
    spread = lambda t: process.schedule.abar(t) * s**2 + process.schedule.sigma(t) ** 2
    error = lambda t: s**2 * process.schedule.sigma(t) ** 2 / spread(t)
    exact, visited = gaussian_denoise(process, 0.0, s), times(process.schedule, steps)
    _, cov = output(ancestral, lambda x, t: replace(exact(x, t), error=error(t)), process, visited, variance="optimal")
    carried = process.schedule.alpha(20) * s**2 / spread(20)  # from x_T to the mean of x_0
    assert cov.item() == pytest.approx(s**2 + carried**2 * (1 - spread(20)) - error(visited[-2]), rel=1e-10)


def test_the_large_variance_is_for_chains_of_every_time_only():
    process = Process(linear(20))
    noise = {t: torch.full((1, 1, 1, 1), t / 7) for t in range(1, 21)}.__getitem__

    def last(visited, variance):
        *_, end = ancestral(denoise_of(process), process, torch.ones(1, 1, 1, 1), visited, noise, variance)
        return end.x

    without_one = [20, *range(18, -1, -1)]
    for visited, chosen, other in ((range(20, -1, -1), "large", "small"), (without_one, "small", "large")):
        assert torch.equal(last(visited, "auto"), last(visited, chosen))
        assert not torch.equal(last(visited, "auto"), last(visited, other))


GENERATOR = torch.Generator().manual_seed(0)
X_T = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=GENERATOR)
NOISES = {t: torch.randn(X_T.shape, dtype=torch.float64, generator=GENERATOR) for t in range(1, 1001)}


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_step_of_ddim_equals_diffusers_too(eta):
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
