"""The process against itself (composition), Bayes' rule on a grid, the papers' formulas, and degenerate ends."""

import math

import pytest
import torch

from unstir.theory.gaussian import Gaussian
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, zero_terminal_snr

PROCESS = Process(linear())
COSINE = Process(cosine())


def scalar(x):
    return torch.tensor([x], dtype=torch.float64)


def test_one_steps_compose_to_the_closed_form():
    mean, var = 0.7, 0.0
    for t in range(1, 1001):
        step = PROCESS.one_step(scalar(mean), t)
        mean, var = step.mean.item(), (1 - PROCESS.schedule.beta(t)) * var + step.var
        if t in (1, 2, 500, 1000):
            closed = PROCESS.marginal(scalar(0.7), t)
            assert mean == pytest.approx(closed.mean.item(), rel=1e-12, abs=0)
            assert var == pytest.approx(closed.var, rel=1e-12, abs=0)


def test_diffuse_is_a_sample_of_the_marginal_for_mixed_times():
    x_0, eps = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    t = torch.tensor([1, 400, 1000])
    x_t = PROCESS.diffuse(x_0, t, eps)
    for i, time in enumerate(t.tolist()):
        torch.testing.assert_close(x_t[i], PROCESS.marginal(x_0[i], time).sample(eps[i]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(x_t[i : i + 1], PROCESS.diffuse(x_0[i : i + 1], time, eps[i : i + 1]))
    assert torch.equal(PROCESS.diffuse(x_0, 0, eps), x_0)


@pytest.mark.parametrize("process", [PROCESS, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("t", [2, 3, 500, 999, 1000])
def test_posterior_is_ho_et_al_equations_6_and_7(process, t):
    s = process.schedule
    alpha_t, abar, before = 1 - s.beta(t), s.abar(t), s.abar(t - 1)
    at_x_t, at_x_0, var = process.posterior_coefficients(t, t - 1)
    assert at_x_t == pytest.approx(math.sqrt(alpha_t) * (1 - before) / (1 - abar), rel=1e-11, abs=0)
    assert at_x_0 == pytest.approx(math.sqrt(before) * s.beta(t) / (1 - abar), rel=1e-11, abs=0)
    assert var == pytest.approx((1 - before) / (1 - abar) * s.beta(t), rel=1e-11, abs=0)


@pytest.mark.parametrize(("t", "s"), [(2, 1), (500, 499), (500, 100), (1000, 1), (1000, 800)])
def test_posterior_is_bayes_rule_on_a_grid(t, s):
    x_0, x_t = 0.4, -0.3
    posterior = PROCESS.posterior(scalar(x_t), scalar(x_0), t, s)
    grid = posterior.mean + posterior.std * torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    log_joint = Gaussian(grid * math.sqrt(1 - PROCESS.schedule.beta(t, s)), math.log(PROCESS.schedule.beta(t, s)))
    log_weight = log_joint.log_prob(scalar(x_t)) + PROCESS.marginal(scalar(x_0), s).log_prob(grid)
    weight = torch.softmax(log_weight, 0)
    mean = (weight * grid).sum()
    assert mean.item() == pytest.approx(posterior.mean.item(), rel=1e-9, abs=0)
    assert (weight * (grid - mean) ** 2).sum().item() == pytest.approx(posterior.var, rel=1e-9, abs=0)


def test_posteriors_compose_over_a_middle_time():
    # q(x_s | x_t, x_0) = integral of q(x_s | x_u, x_0) q(x_u | x_t, x_0): a long stride is its two halves.
    t, u, s = 900, 400, 30
    a, b, var_u = PROCESS.posterior_coefficients(t, u)
    c, d, var_s = PROCESS.posterior_coefficients(u, s)
    at_x_t, at_x_0, var = PROCESS.posterior_coefficients(t, s)
    assert at_x_t == pytest.approx(c * a, rel=1e-12, abs=0)
    assert at_x_0 == pytest.approx(c * b + d, rel=1e-12, abs=0)
    assert var == pytest.approx(c * c * var_u + var_s, rel=1e-12, abs=0)


def test_the_last_posterior_is_the_image_itself():
    x_0 = torch.randn(2, 3, dtype=torch.float64)
    for t in (1, 500, 1000):
        posterior = PROCESS.posterior(torch.randn(2, 3, dtype=torch.float64), x_0, t, 0)
        assert torch.equal(posterior.mean, x_0) and posterior.var == 0


def test_zero_terminal_snr_has_a_finite_posterior_at_T():
    process = Process(zero_terminal_snr(linear()))
    at_x_t, at_x_0, var = process.posterior_coefficients(1000, 999)
    assert at_x_t == 0 and at_x_0 == process.schedule.alpha(999)
    assert var == pytest.approx(process.schedule.sigma(999) ** 2)


@pytest.mark.parametrize(("t", "s"), [(5, 5), (5, 6), (0, 0), (1001, 3), (5, -1)])
def test_times_in_the_wrong_order_are_refused(t, s):
    with pytest.raises(ValueError, match="0 <= s < t <= 1000"):
        PROCESS.posterior_coefficients(t, s)
