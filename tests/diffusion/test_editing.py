"""Editing against data whose conditional means and flows are known, and against the samplers that it is made of."""

import math
from dataclasses import replace

import pytest
import torch
from known import denoise_of, known

from refusals import mistake
from unstir.chain import SAMPLERS, Chain
from unstir.diffusion.denoiser import Prediction, clipped
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.editing import below, between, inpaint, inpainting_calls, invert, mixed, slerp, vary
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.edit.editing import psnr
from unstir.randomness import Key, normal
from unstir.theory.oracle import GaussianData, MixtureData
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, times, zero_terminal_snr

LINEAR, COSINE = Process(linear()), Process(cosine())
SHAPE = (1, 4, 4)
NEAR = 0.25 * torch.exp(-(torch.arange(16).double()[:, None] - torch.arange(16)).abs() / 3)
GAUSSIAN = GaussianData(torch.linspace(-0.3, 0.3, 16).double().view(SHAPE), NEAR)
MIXTURE = MixtureData(
    torch.tensor([0.3, 0.7]).double(),
    torch.stack((torch.full(SHAPE, -0.5), torch.full(SHAPE, 0.4))).double(),
    torch.stack((0.2 * NEAR, 0.4 * NEAR)),
)


def noise_of(name, shape=SHAPE, n=8):
    return normal(Key(0, f"test {name}", 0, torch.arange(n)), shape).double()


DEVIATIONS = (noise_of("data").flatten(1) @ torch.linalg.cholesky(NEAR).mT).view(8, *SHAPE)
IMAGES = {"gaussian": GAUSSIAN.mean + DEVIATIONS, "mixture": MIXTURE.means[[0, 0, 0, 1, 1, 1, 1, 1]] + 0.4 * DEVIATIONS}
DATA = {"gaussian": GAUSSIAN, "mixture": MIXTURE}


def last(steps):
    *_, end = steps
    return end.x


def there_and_back(process, name, steps, refinements):
    """The image that comes back from its noise."""
    denoise, visited = known(DATA[name], process), times(process.schedule, steps)
    x_T = last(invert(denoise, process, IMAGES[name], visited[::-1], refinements))
    return last(ddim(denoise, process, x_T, visited, lambda t: x_T))


def error(process, name, steps, refinements):
    return (there_and_back(process, name, steps, refinements) - IMAGES[name]).abs().max().item()


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
@pytest.mark.parametrize("process", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_an_image_comes_back_from_its_noise(process, name):
    assert psnr(there_and_back(process, name, 500, 0), IMAGES[name]) > 40
    assert error(process, name, 50, 20) < 1e-6


def test_each_refinement_raises_the_order_by_one():
    for refinements, least in ((0, 0.9), (1, 1.9), (2, 2.9)):
        coarse, fine = (error(LINEAR, "gaussian", steps, refinements) for steps in (500, 1000))
        assert least < math.log2(coarse / fine) < least + 0.2


def test_refinements_converge_where_either_estimate_alone_would_not_and_without_signal_at_the_end():
    """Holding the noise alone stalls at 3e-2 here, holding the image alone at 3e-3."""
    assert error(COSINE, "gaussian", 10, 20) < 1e-8
    assert error(Process(zero_terminal_snr(linear())), "gaussian", 50, 20) < 1e-6


def test_refinements_that_go_apart_are_dropped_image_by_image():
    """The estimate of the first image grows with x_t, so that its fixed point repels; the second's attracts."""
    steep = torch.tensor([40.0, 0.3]).double().view(2, 1, 1, 1)
    denoise = lambda x, t: Prediction(steep * x, LINEAR.eps(x, steep * x, t))
    image = torch.full((2, 1, 2, 2), 0.5).double()
    found = {n: last(invert(denoise, LINEAR, image, [0, 100, 400], n)) for n in (1, 30)}
    assert torch.equal(found[30][0], found[1][0])  # each more would have multiplied it
    alone = [last(invert(lambda x, t: Prediction(0.3 * x, x), LINEAR, image[1:], [0, 100, 400], n)) for n in (29, 30)]
    torch.testing.assert_close(found[30][1:], alone[1])  # what the neighbour does is of no matter
    torch.testing.assert_close(alone[0], alone[1], rtol=1e-5, atol=0)  # which has converged


def test_inversion_rises_and_never_asks_for_time_0():
    asked = []
    denoise = lambda x, t: (asked.append(t), known(GAUSSIAN, LINEAR)(x, t))[1]
    steps = list(invert(denoise, LINEAR, IMAGES["gaussian"], [0, 100, 300, 1000], 1))
    assert [step.t for step in steps] == [100, 300, 1000]
    assert asked == [100, 100, 100, 300, 300, 1000]
    asked.clear()
    list(invert(denoise, LINEAR, IMAGES["gaussian"], [0, 1, 300]))
    assert asked == [1, 1]


N = 2048
PAIRED = GaussianData(
    torch.full((1, 2, 2), 0.1).double(), 0.25 * (0.9 * torch.ones(4, 4) + 0.1 * torch.eye(4)).double()
)
TOP = torch.tensor([[True, True], [False, False]]).view(1, 1, 2, 2)
SEEN = torch.tensor([[0.7, 0.5], [0.0, 0.0]]).double().view(1, 1, 2, 2)


def repeated(use, t, repeat, n=N, shape=(1, 2, 2)):
    return normal(Key(0, f"test {use}", repeat * 1001 + t, torch.arange(n)), shape).double()


def filled(steps, mask=TOP, **options):
    visited = times(LINEAR.schedule, steps)
    image, x_T = SEEN.expand(N, -1, -1, -1), noise_of("inpaint", (1, 2, 2), N)
    return last(inpaint(known(PAIRED, LINEAR), LINEAR, image, mask, x_T, visited, repeated, **options))


def test_resampling_leads_to_the_conditional_mean():
    cov, seen = PAIRED.covariance, SEEN.flatten()[:2] - 0.1
    wanted = 0.1 + cov[2:, :2] @ torch.linalg.solve(cov[:2, :2], seen)
    off = {}
    for options in ((1, 1), (2, 1), (10, 1), (10, 5)):
        x = filled(100, resamples=options[0], jump=options[1])
        assert torch.equal(x[:, :, 0], SEEN[:, :, 0].expand(N, -1, -1))
        off[options] = (x.flatten(1)[:, 2:].mean(0) - wanted).abs().max().item()
    assert wanted[0].item() == pytest.approx(0.5737, abs=1e-4)  # the mean without anything seen is 0.1
    assert off[1, 1] > 0.1 > 2 * off[2, 1] / 1.5
    assert off[10, 1] < 0.02 and off[10, 5] < 0.03  # five standard errors of the mean are 0.02


def test_resampling_keeps_the_spread_of_the_data():
    """Each step of the large variance is exact for unit data, and so is each way back: the last leaves 1 - beta_1."""
    process, n = Process(linear(20, 0.01, 0.2)), 2**14
    unit = GaussianData(torch.zeros(SHAPE[0], 1, 1).double(), torch.eye(1).double())
    x_T, nothing = noise_of("start", (1, 1, 1), n), torch.zeros(1, 1, 1, 1).bool()
    fresh = lambda use, t, repeat: repeated(use, t, repeat, n, (1, 1, 1))
    visited = times(process.schedule, 20)
    x = last(inpaint(known(unit, process), process, x_T, nothing, x_T, visited, fresh, resamples=3, jump=2))
    assert x.var().item() == pytest.approx(0.99, abs=5 * math.sqrt(2 / n))


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_filling_in_everything_is_the_ancestral_chain(learned, steps):
    process = Process(linear(20, 0.01, 0.2))
    fraction = torch.full((8, *SHAPE), 0.3).double() if learned else None
    denoise = lambda x, t: replace(denoise_of(process)(x, t), var_fraction=fraction)
    visited, x_T = times(process.schedule, steps), noise_of("start")
    fresh = lambda use, t, repeat: repeated(use, t, repeat, 8, SHAPE)
    nothing = torch.zeros(8, 1, 4, 4, dtype=torch.bool)
    ours = list(inpaint(denoise, process, 0 * x_T, nothing, x_T, visited, fresh, resamples=1))
    theirs = list(ancestral(denoise, process, x_T, visited, lambda t: fresh("step", t, 0)))
    assert [step.t for step in ours] == [step.t for step in theirs]
    assert all(torch.equal(a.x, b.x) and torch.equal(a.x0, b.x0) for a, b in zip(ours, theirs, strict=True))


def test_the_chain_goes_back_and_never_uses_noise_twice():
    used, inputs, visited = [], [], [1000, 800, 600, 400, 200, 0]

    fresh = lambda *use: (used.append(use), repeated(*use, 8, SHAPE))[1]
    denoise = lambda x, t: (inputs.append((t, x)), known(GAUSSIAN, LINEAR)(x, t))[1]
    keep, image = noise_of("mask") < 0, IMAGES["gaussian"]
    steps = list(inpaint(denoise, LINEAR, image, keep, 0 * image, visited, fresh, resamples=3, jump=3))
    assert [step.t for step in steps] == [*[800, 600, 400] * 3, *[200] * 3, 0]
    assert len(steps) == inpainting_calls(5, 3, 3) and len(set(used)) == len(used)
    assert torch.equal(steps[-1].x.where(keep, 0), image.where(keep, 0))
    assert not [use for use in used if use[:2] == ("known", 0)]
    assert inpainting_calls(50, 10) == 491 and inpainting_calls(1, 10) == 1
    for step, (s, repeat) in {1: (600, 0), 7: (600, 2), 10: (200, 1)}.items():
        seen = LINEAR.diffuse(image, s, repeated("known", s, repeat, 8, SHAPE))
        assert steps[step].t == s and torch.equal(steps[step].x.where(keep, 0), seen.where(keep, 0))
    for step, (t, s, repeat) in {3: (1000, 400, 1), 6: (1000, 400, 2), 10: (400, 200, 1), 11: (400, 200, 2)}.items():
        beta = 1 - LINEAR.schedule.abar(t) / LINEAR.schedule.abar(s)
        back = math.sqrt(1 - beta) * steps[step - 1].x + math.sqrt(beta) * repeated("back", t, repeat, 8, SHAPE)
        assert inputs[step][0] == t
        torch.testing.assert_close(inputs[step][1], back)


def varied(strength, name="gaussian", **settings):
    image, indices = IMAGES[name], torch.arange(8)
    return last(vary(known(DATA[name], LINEAR), LINEAR, image, strength, indices, Chain(clip=False, **settings)))


def test_strength_goes_from_the_image_to_any_image():
    image = IMAGES["gaussian"]
    quality = [psnr(varied(strength, steps=20), image) for strength in (0.01, 0.1, 0.3, 0.6)]
    assert quality[0] > 30 and quality == sorted(quality, reverse=True)
    indices, x_T = torch.arange(8), starting_noise(0, torch.arange(8), SHAPE).double()
    free = last(draw(known(GAUSSIAN, LINEAR), LINEAR, x_T, indices, Chain(clip=False, steps=20)))
    assert (varied(1.0, steps=20) - free).abs().max() < 0.05  # alpha_T is 0.006
    assert (varied(0.6, steps=20) - free).abs().max() > 0.1


def test_what_is_drawn_is_a_sample_given_the_noisy_image():
    """For one pixel of N(m, s^2) the mean over noise is m + alpha^2 s^2 / (alpha^2 s^2 + sigma^2) (x_0 - m)."""
    data = GaussianData(torch.full((1, 1, 1), 0.1).double(), torch.full((1, 1), 0.25).double())
    image, indices = torch.full((1, 1, 1, 1), 0.9).double(), torch.arange(4096)
    signal, noise = LINEAR.schedule.abar(300) * 0.25, LINEAR.schedule.sigma(300) ** 2
    out = last(vary(known(data, LINEAR), LINEAR, image, 0.3, indices, Chain(clip=False, steps=300)))
    assert out.mean().item() == pytest.approx(0.1 + signal / (signal + noise) * 0.8, abs=5 * 0.5 / 64)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spacing", ["trailing", "leading", "quadratic"])
def test_any_sampler_varies(sampler, spacing):
    out = varied(0.2, "mixture", sampler=sampler, spacing=spacing, steps=12)
    assert out.isfinite().all() and psnr(out, IMAGES["mixture"]) > 10


def test_the_noise_put_on_is_that_of_the_first_time_visited():
    inputs = []
    denoise = lambda x, t: (inputs.append((t, x)), known(GAUSSIAN, LINEAR)(x, t))[1]
    indices = torch.tensor([5])
    chain = Chain(spacing="leading", steps=7, seed=3)
    list(vary(denoise, LINEAR, IMAGES["gaussian"][:1], 0.5, indices, chain))
    t, x = inputs[0]
    assert t == 427  # 6 * (500 // 7) + 1
    eps = starting_noise(3, indices, SHAPE).double()
    torch.testing.assert_close(x, LINEAR.diffuse(IMAGES["gaussian"][:1], t, eps))


def test_the_chain_is_cut_to_the_strength():
    asked = []
    denoise = lambda x, t: (asked.append(t), known(GAUSSIAN, LINEAR)(x, t))[1]
    image, indices = IMAGES["gaussian"], torch.arange(8)
    go = lambda strength, chain: list(vary(denoise, LINEAR, image, strength, indices, chain, denoise))
    assert [step.t for step in go(0.0101, Chain(steps=1000))] == list(range(9, -1, -1))
    assert asked == list(range(10, 0, -1))
    go(0.5, Chain(steps=5, guidance=2.0, guidance_low=100, guidance_high=900))
    asked.clear()
    go(0.5, Chain(steps=5, guidance=2.0, guidance_low=600, guidance_high=900))
    assert asked == [500, 400, 300, 200, 100]  # not guided here, so one call each
    asked.clear()
    go(0.5, Chain(steps=5, guidance=2.0, guidance_low=500))
    assert asked == [500, 500, 400, 300, 200, 100]  # guided at the first time alone
    ends = {(20, 0.001): 1, (20, 0.33): 7, (1000, 0.6): 600, (1000, 1): 1000}  # of 0.02 and 6.6
    assert {(T, strength): below(Process(linear(T)), strength, Chain(steps=1))[0].T for T, strength in ends} == ends
    for strength in (0.0, -0.1, 1.1, math.nan):
        assert "strength=" in str(mistake(go, strength, Chain()))
    assert "steps=1001" in str(mistake(go, 0.5, Chain(steps=1001)))


def test_slerp_is_exact_at_its_ends_and_keeps_the_norm():
    a, b = noise_of("a", (3, 32, 32)), noise_of("b", (3, 32, 32))
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1.0), b)
    norm = lambda x: x.flatten(1).norm(dim=1)
    unit = b * (norm(a) / norm(b)).view(-1, 1, 1, 1)
    for weight in (0.1, 0.5, 0.8):
        torch.testing.assert_close(norm(slerp(a, unit, weight)), norm(a), rtol=1e-12, atol=0)
        assert ((norm(slerp(a, b, weight)) / 3072**0.5 - 1).abs() < 0.05).all()
        angle = lambda x, y: torch.acos((x * y).flatten(1).sum(1) / norm(x) / norm(y))
        torch.testing.assert_close(angle(a, slerp(a, unit, weight)), weight * angle(a, b), rtol=1e-6, atol=0)
    assert ((norm(torch.lerp(a, b, 0.5)) / 3072**0.5) < 0.8).all()  # which is why
    weights = torch.linspace(0, 1, 8)  # one an image
    for weight, made in zip(weights, slerp(a[:1], b[:1], weights), strict=True):
        torch.testing.assert_close(made, slerp(a[:1], b[:1], weight.item())[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slerp_takes_the_line_where_there_is_no_arc(dtype):
    a = noise_of("a", (3, 32, 32)).to(dtype)
    near = a + torch.finfo(dtype).eps * noise_of("b", (3, 32, 32)).to(dtype)
    for b in (a, near, -a, 2 * a, 0 * a):
        torch.testing.assert_close(slerp(a, b, 0.25), 0.75 * a + 0.25 * b, rtol=1e-5, atol=1e-5)
    for off, line in ((0.3, True), (3, False)):  # in roots of the rounding from opposite
        b = -a + off * torch.finfo(dtype).eps ** 0.5 * noise_of("b", (3, 32, 32)).to(dtype)
        assert torch.allclose(slerp(a, b, 0.25), 0.75 * a + 0.25 * b, atol=0.01) == line


def test_a_mixed_denoiser_is_each_of_the_two_at_its_ends():
    first, second = clipped(known(GAUSSIAN, LINEAR)), known(MIXTURE, LINEAR)
    x, parts = noise_of("a"), ("x0", "raw")
    for weight, one in ((0.0, first), (1, second)):
        both = mixed(first, second, weight)(x, 300)
        assert all(torch.equal(getattr(both, part), getattr(one(x, 300), part)) for part in parts)
        assert both.var_fraction is None
    half = mixed(first, second, torch.tensor([0.5] * 4 + [0.25] * 4))(x, 300).x0
    one, other = first(x, 300).x0, second(x, 300).x0
    torch.testing.assert_close(half[:4], (one + other)[:4] / 2)
    torch.testing.assert_close(half[4:], (0.75 * one + 0.25 * other)[4:])
    assert mixed(first, first, 0.3) is first
    told = [lambda x, t, v=v: replace(first(x, t), var_fraction=0 * x + v) for v in (0.2, 0.6)]
    torch.testing.assert_close(mixed(*told, 0.25)(x, 300).var_fraction, 0 * x + 0.3)
    assert mixed(first, told[0], 0.25)(x, 300).var_fraction is None  # of one alone there is none between


def test_a_blend_has_both_images_at_its_ends():
    denoises = known(MIXTURE, LINEAR), known(GAUSSIAN, LINEAR)  # each end is its own denoiser's
    pair = IMAGES["mixture"][:1], IMAGES["mixture"][1:2]
    weights, visited = torch.linspace(0, 1, 5), times(LINEAR.schedule, 50)
    noises = [last(invert(d, LINEAR, x, visited[::-1], 20)) for d, x in zip(denoises, pair, strict=True)]
    steps = list(between(denoises, LINEAR, noises, weights, visited))
    assert [step.t for step in steps] == visited[1:]
    out = steps[-1].x
    torch.testing.assert_close(out[:1], pair[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(out[4:], pair[1], rtol=0, atol=1e-6)
    gaps = (out[1:] - out[:-1]).flatten(1).norm(dim=1)
    assert (gaps > 0.01).all()
