"""The bound against closed forms, against improved-diffusion's arithmetic written plainly, and by time."""

import math
from itertools import pairwise

import pytest
import torch
from known import PROCESS, denoise_of, gaussian_denoise

from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.likelihood import Bound, bound_term, strata, variational_bound
from unstir.randomness import Key
from unstir.theory.parameterization import log_variance
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, times

M = 0.3
NODES = torch.tensor([-math.sqrt(3), 0, math.sqrt(3)], dtype=torch.float64)
WEIGHTS = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)


def exact_bound(process, std, denoise, **options):
    """The expected bound for data N(M, std^2): every term is quadratic in x_0 and eps, so nine nodes are exact."""
    x_0 = (M + std * NODES).repeat_interleave(3).view(9, 1, 1, 1)
    eps = NODES.repeat(3).view(9, 1, 1, 1)
    bound = variational_bound(denoise, process, x_0, lambda t: eps, discretised=False, **options)
    return bound, torch.outer(WEIGHTS, WEIGHTS).flatten()


def entropy(std):
    return 0.5 * math.log(2 * math.pi * math.e * std**2)


def with_best_variance(process, std):
    """The exact denoiser with the exact variance of q(x_{t-1} | x_t) as its fraction, for any Gaussian data."""
    exact = gaussian_denoise(process, M, std)

    def denoise(x, t):
        v = process.schedule.abar(t) * std**2 + process.schedule.sigma(t) ** 2
        spread = std**2 * process.schedule.sigma(t) ** 2 / v  # Var(x_0 | x_t)
        at_x_0, log_small, log_large = process.step(t, x)
        own = process.posterior_coefficients(t, t - 1)[2]
        best = math.log(own + at_x_0**2 * spread)
        fraction = (best - log_small) / (log_large - log_small)
        return Prediction(exact(x, t).x0, x, torch.full_like(x, fraction))

    return denoise


@pytest.mark.parametrize("std", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("schedule", [linear(200, 1e-4, 0.1), cosine(200)], ids=["linear", "cosine"])
def test_the_best_learned_variance_leaves_the_priors_gap_alone(schedule, std):
    process = Process(schedule)
    bound, weight = exact_bound(process, std, with_best_variance(process, std), variance="learned")
    gap = (bound.nats - bound.prior) @ weight - entropy(std)
    # with its mean and variance exact, each reverse kernel is q(x_{t-1} | x_t) and only the prior differs
    # so that the bound is H(x_0) - I(x_0; x_T) + E KL( q(x_T | x_0) || N(0, 1) )
    mutual = 0.5 * math.log1p(schedule.abar(200) * std**2 / schedule.sigma(200) ** 2)
    assert gap.item() == pytest.approx(-mutual, abs=1e-10)


def plain_terms(process, x_0, x_t, prediction, t, kind):
    """The terms as improved-diffusion writes them: posterior mean with both coefficients, then KL, then the CDF."""
    small, large = (math.exp(value) for value in process.step(t, x_0)[1:])
    log_var = log_variance(kind, math.log(small), math.log(large), prediction.var_fraction)
    log_var = torch.as_tensor(log_var, dtype=torch.float64).expand_as(x_0)
    at_x_t, at_x_0, _ = process.posterior_coefficients(t, t - 1)
    mean = at_x_t * x_t + at_x_0 * prediction.x0
    if t > 1:
        true = at_x_t * x_t + at_x_0 * x_0
        kl = 0.5 * (log_var - math.log(small) + (small + (true - mean) ** 2) / log_var.exp() - 1)
        return kl.flatten(1).sum(1)
    cdf = lambda z: 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    upper, lower = cdf((x_0 + 1 / 255 - mean) / (log_var / 2).exp()), cdf((x_0 - 1 / 255 - mean) / (log_var / 2).exp())
    mass = torch.where(x_0 > 0.999, 1 - lower, torch.where(x_0 < -0.999, upper, upper - lower))
    return -mass.log().flatten(1).sum(1)


@pytest.mark.parametrize("kind", ["small", "large", "learned"])
@pytest.mark.parametrize("t", [1, 2, 300, 1000])
def test_each_term_equals_the_papers_formula(kind, t):
    generator = torch.Generator().manual_seed(t)
    pixels = torch.randint(0, 256, (3, 2, 4, 4), generator=generator)
    pixels[0, 0, 0, :2] = torch.tensor([0, 255])
    x_0 = pixels.double() / 127.5 - 1
    eps, error, fraction = torch.randn(3, *x_0.shape, dtype=torch.float64, generator=generator)
    x_t = PROCESS.diffuse(x_0, t, eps)
    prediction = Prediction(x_0 + 0.02 * error, eps, 0.5 + 0.3 * fraction)
    ours = bound_term(prediction, PROCESS, x_0, t, kind)
    # at t = 1 the plain form subtracts two nearly equal CDFs, and is the less exact one
    plain = plain_terms(PROCESS, x_0, x_t, prediction, t, kind)
    torch.testing.assert_close(ours, plain, rtol=1e-6 if t == 1 else 1e-8, atol=1e-13)
    mixed = torch.tensor([t, 1, 900])  # times of a batch
    for row, time in enumerate(mixed.tolist()):
        alone, in_batch = (bound_term(prediction, PROCESS, x_0, at, kind)[row] for at in (time, mixed))
        torch.testing.assert_close(in_batch, alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_even_where_the_network_is_far_off(dtype):
    x_0 = torch.tensor([-1.0, 1.0, 0.0039215686, 0.5], dtype=dtype).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
    for far in (0.0, 3.0, -1e4):
        x0 = (x_0 + far).requires_grad_()
        fraction = torch.full_like(x_0, 0.5, requires_grad=True)
        t = torch.tensor([1, 2, 1000])
        term = bound_term(Prediction(x0, x_0, fraction), Process(cosine()), x_0, t, "learned")
        term.sum().backward()
        assert term.isfinite().all() and x0.grad.isfinite().all() and fraction.grad.isfinite().all()


def test_a_far_tail_keeps_its_gradient_in_float32():
    x_0, far = torch.zeros(1, 1, 1, 2), torch.tensor([0.02, 3.0]).view(1, 1, 1, 2)
    found = []
    for dtype in (torch.float32, torch.float64):
        x0 = far.to(dtype, copy=True).requires_grad_()
        bound_term(Prediction(x0, x0), PROCESS, x_0.to(dtype), 1, "large").sum().backward()
        found.append(x0.grad.double())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=0)
    assert (found[1] > 0).all()


def test_the_terms_add_up_and_the_units_are_right():
    x_0 = torch.randint(0, 256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0)).double() / 127.5 - 1
    noise = lambda t: torch.randn(x_0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
    process, calls = Process(linear(50, 1e-3, 0.2)), []
    bound = variational_bound(denoise_of(process), process, x_0, noise, on_call=lambda: calls.append(1))
    assert len(calls) == 50 and bound.times == tuple(range(2, 51)) and bound.dims == 48
    by_hand = bound.prior + bound.terms.sum(1) + bound.decoder
    torch.testing.assert_close(bound.nats, by_hand, rtol=1e-12, atol=0)
    torch.testing.assert_close(bound.bits_per_dim * 48 * math.log(2), by_hand, rtol=1e-12, atol=0)
    one_bit = torch.full((1,), math.log(2), dtype=torch.float64)
    nothing = torch.zeros(1, 0, dtype=torch.float64)
    assert Bound(one_bit, nothing, 0 * one_bit, (), torch.zeros(0, dtype=torch.float64), 1).bits_per_dim.item() == 1


def test_the_prior_is_the_papers_and_a_chain_of_one_step_has_no_other_terms():
    x_0, T = torch.linspace(-1, 1, 6).double().view(2, 1, 1, 3), 300
    bound = variational_bound(denoise_of(PROCESS), PROCESS, x_0, lambda t: 0 * x_0, times=[T, 0])
    signal, noise = PROCESS.schedule.abar(T), PROCESS.schedule.sigma(T) ** 2
    by_hand = 0.5 * (signal * x_0**2 + noise - 1 - math.log(noise)).flatten(1).sum(1)
    torch.testing.assert_close(bound.prior, by_hand, rtol=1e-12, atol=0)
    assert bound.terms.shape == (2, 0) and torch.equal(bound.nats, bound.prior + bound.decoder)


def test_a_strided_chain_is_bounded_by_its_own_steps():
    std, visited = 0.5, times(PROCESS.schedule, 40)
    told = []

    def spying(x, t):
        told.append(t)
        return gaussian_denoise(PROCESS, M, std)(x, t)

    bound, weight = exact_bound(PROCESS, std, spying, times=visited)
    assert sorted(told, reverse=True) == visited[:-1]  # the network is told the original times
    strided = (bound.nats @ weight).item()
    whole, _ = exact_bound(PROCESS, std, gaussian_denoise(PROCESS, M, std))
    assert strided > (whole.nats @ weight).item() > entropy(std)
    expected = 0.0
    for k, (t, s) in enumerate(pairwise(visited[:-1])):
        small, large = (math.exp(x) for x in PROCESS.log_variances(t, s))
        v = PROCESS.schedule.abar(t) * std**2 + PROCESS.schedule.sigma(t) ** 2
        spread = std**2 * PROCESS.schedule.sigma(t) ** 2 / v
        apart = PROCESS.posterior_coefficients(t, s)[1] ** 2 * spread
        term = 0.5 * (math.log(large / small) + (small + apart) / large - 1)
        assert (bound.terms[:, -1 - k] @ weight).item() == pytest.approx(term, abs=1e-12)
        expected += term
    assert ((bound.terms.sum(1)) @ weight).item() == pytest.approx(expected, rel=1e-10, abs=0)


@pytest.mark.parametrize(("steps", "n"), [(1000, 50), (1000, 1), (1000, 999), (10, 4), (2, 1)])
def test_strata_cover_every_step_once_and_pick_evenly_within(steps, n):
    covered = {}
    for seed in range(300):
        drawn = strata(steps, n, Key(seed, "times", 0, torch.arange(n)))
        assert len(drawn) == n and sum(drawn.values()) == steps - 1
        for step, size in drawn.items():
            covered.setdefault(step, []).append(size)
    assert min(covered) >= 2 and max(covered) <= steps
    if n in (999, 4):  # few steps a part: all of them come up, each as often as its part is small
        assert set(covered) == set(range(2, steps + 1))
        for sizes in covered.values():
            assert len(set(sizes)) == 1 and len(sizes) * sizes[0] == pytest.approx(300, rel=0.45)


def test_an_estimate_is_the_sum_on_average():
    process = Process(linear(40, 1e-3, 0.2))
    x_0 = torch.randint(0, 256, (2, 1, 4, 4), generator=torch.Generator().manual_seed(0)).double() / 127.5 - 1
    noise = lambda t: torch.randn(x_0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
    whole = variational_bound(denoise_of(process), process, x_0, noise).nats
    drawn = [strata(40, 8, Key(seed, "times", 0, torch.arange(8))) for seed in range(400)]
    estimates = torch.stack(
        [variational_bound(denoise_of(process), process, x_0, noise, sampled=each).nats for each in drawn]
    )
    error = estimates.std(0) / 20
    assert ((estimates.mean(0) - whole).abs() < 5 * error).all() and (error > 0).all()


def test_parts_grow_geometrically_for_the_terms_fall_as_1_over_t():
    drawn = strata(1000, 50, Key(0, "times", 0, torch.arange(50)))
    assert list(strata(10, 4, Key(0, "times", 0, torch.arange(4))).values()) == [1.0, 2.0, 2.0, 4.0]  # 2 3 5 7 11
    ratios = [size / step for step, size in drawn.items() if size > 20]
    assert min(ratios) > 0.08 and max(ratios) < 0.2
