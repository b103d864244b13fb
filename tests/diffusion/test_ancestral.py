"""The reverse chain against diffusers step by step, and against the closed form of known data."""

from itertools import pairwise

import pytest
import torch
from known import PROCESS, denoise_of, gaussian_denoise, network

from unstir.chain import Chain
from unstir.diffusion.denoiser import Prediction, clipped
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.errors import UserError
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, times


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


def moments(process, mean, std, visited, variance):
    """Mean and variance of the chain's output for exact Gaussian denoising, read off its affine coefficients."""
    denoise = gaussian_denoise(process, mean, std)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    quiet = lambda t: zero
    *_, offset = ancestral(denoise, process, zero, visited, quiet, variance)
    *_, slope = ancestral(denoise, process, one, visited, quiet, variance)
    total = (slope.x - offset.x).item() ** 2
    for at in visited[:-2]:
        *_, pushed = ancestral(denoise, process, zero, visited, lambda t, at=at: one if t == at else zero, variance)
        total += (pushed.x - offset.x).item() ** 2
    return offset.x.item(), total


def test_unit_data_comes_out_with_variance_one_minus_beta_1():
    process = Process(linear(200, 1e-4, 0.1))
    _, var = moments(process, 0.3, 1.0, times(process.schedule, 200), "large")
    assert var == pytest.approx(1 - 1e-4, rel=1e-10, abs=0)


def test_one_point_comes_out_as_itself():
    process = Process(linear(200, 1e-4, 0.1))
    mean, var = moments(process, 0.3, 0.0, times(process.schedule, 200), "small")
    assert mean == pytest.approx(0.3, rel=1e-10, abs=0) and var == pytest.approx(0, abs=1e-20)


def chain_variance(process, std, visited, variance):
    """Output variance by the recursion of the affine chain, in time linear in its length."""
    var = 1.0
    for t, s in pairwise(visited):
        alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)  # d x0_hat / d x_t
        probe = {}
        denoise = lambda x, _: Prediction(gain * x, x)  # noqa: B023
        for name, (x, z) in {"x": (1.0, 0.0), "z": (0.0, 1.0)}.items():
            noise = lambda _, z=z: torch.tensor(z, dtype=torch.float64)
            steps = ancestral(
                denoise, process, torch.tensor(x, dtype=torch.float64), [t, s, 0][: 3 if s else 2], noise, variance
            )
            probe[name] = next(steps).x.item()
        var = probe["x"] ** 2 * var + probe["z"] ** 2
    return var


@pytest.mark.parametrize(("variance", "excess"), [("large", 0.00300830), ("small", -0.01549915)])
def test_output_variance_of_half_unit_data_has_the_exact_value(variance, excess):
    var = chain_variance(PROCESS, 0.5, times(PROCESS.schedule, 1000), variance)
    assert var / 0.25 - 1 == pytest.approx(excess, abs=5e-9)


def test_auto_is_large_over_all_times_and_small_over_some():
    x, noise = torch.randn(1, 1, 2, 2, dtype=torch.float64), lambda t: torch.ones(1, 1, 2, 2, dtype=torch.float64)
    process = Process(linear(20, 0.01, 0.2))
    for steps, same in ((20, "large"), (7, "small")):
        ends = {}
        for variance in ("auto", "large", "small"):
            *_, ends[variance] = ancestral(
                denoise_of(process), process, x, times(process.schedule, steps), noise, variance
            )
        assert torch.equal(ends["auto"].x, ends[same].x)
        assert not torch.equal(ends["large"].x, ends["small"].x)


def test_the_clamp_comes_before_the_mean():
    far = lambda x, t: Prediction(x * 0 + 5, x)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    step = next(iter(ancestral(clipped(far), PROCESS, x, [500, 250, 0], lambda t: x, "small")))
    assert step.x0.item() == 1 and step.x.item() == pytest.approx(PROCESS.posterior_coefficients(500, 250)[1])


def test_an_image_is_the_same_in_any_batch():
    indices = torch.arange(6)
    x_T = starting_noise(3, indices, (1, 4, 4))
    chain = Chain(steps=10, seed=3)
    *_, whole = draw(denoise_of(PROCESS), PROCESS, x_T, indices, chain)
    *_, part = draw(denoise_of(PROCESS), PROCESS, x_T[4:], indices[4:], chain)
    torch.testing.assert_close(whole.x[4:], part.x, rtol=0, atol=1 / 255)
    *_, other = draw(denoise_of(PROCESS), PROCESS, x_T, indices, Chain(steps=10, seed=4))
    assert not torch.allclose(whole.x, other.x)
    assert whole.t == 0


def test_wrong_calls_are_refused():
    x = torch.zeros(1, 1, 1, 1)
    run = lambda visited, variance="auto": list(
        ancestral(denoise_of(PROCESS), PROCESS, x, visited, lambda t: x, variance)
    )
    for visited in ([500], [500, 600, 0], [500, 500, 0], [500, 1], [1001, 0]):
        with pytest.raises(ValueError, match="fall strictly"):
            run(visited)
    with pytest.raises(UserError, match="auto, small, large"):
        run([5, 0], "huge")
    with pytest.raises(ValueError, match="'ancestral', 'ddim'"):
        Chain(sampler="magic")
