"""What must hold for every schedule, time and image, searched by hypothesis (derandomised; see tests/conftest.py)."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Gaussian, Process
from unstir.theory.schedule import SPACINGS, cosine, from_betas, linear, sigmoid, times

FINITE = st.floats(-3, 3)


@st.composite
def schedules(draw):
    """Linear, cosine and sigmoid ones of any length, and any betas at all."""
    T = draw(st.integers(2, 60))
    kind = draw(st.sampled_from(["linear", "cosine", "sigmoid", "any"]))
    if kind == "linear":
        first = draw(st.floats(1e-5, 0.05))
        return linear(T, first, draw(st.floats(first, 0.4)))
    if kind == "any":
        return from_betas(
            torch.tensor(draw(st.lists(st.floats(1e-5, 0.9), min_size=T, max_size=T)), dtype=torch.float64)
        )
    return {"cosine": cosine, "sigmoid": sigmoid}[kind](T)


@st.composite
def chains(draw):
    """A process and two of its times s < t."""
    process = Process(draw(schedules()))
    t = draw(st.integers(1, process.T))
    return process, t, draw(st.integers(0, t - 1))


@given(schedules())
def test_abar_falls_from_one_and_stays_positive(schedule):
    abar = [schedule.abar(t) for t in range(schedule.T + 1)]
    assert abar[0] == 1 and all(0 < later < earlier for earlier, later in pairwise(abar))
    for t in range(schedule.T + 1):
        assert schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 == pytest.approx(1, rel=1e-14, abs=0)
    product = 1.0
    for t in range(1, schedule.T + 1):
        product *= 1 - schedule.beta(t)
        assert product == pytest.approx(abar[t], rel=1e-11, abs=0)


@given(chains(), FINITE, FINITE)
def test_predictions_convert_into_each_other_and_back(chain, x, noise):
    process, t, _ = chain
    schedule = process.schedule
    x_0, eps = torch.full((1, 1), x, dtype=torch.float64), torch.full((1, 1), noise, dtype=torch.float64)
    x_t = process.diffuse(x_0, t, eps)
    condition = 1 / (schedule.alpha(t) * schedule.sigma(t))  # of solving x_t = alpha x_0 + sigma eps for either
    for kind in PARAMETERIZATIONS.values():
        estimate = kind.x0(schedule, x_t, t, kind.target(schedule, x_0, t, eps))
        assert (estimate - x_0).abs().item() <= 1e-14 * condition * 10
        assert (process.eps(x_t, estimate, t) - eps).abs().item() <= 1e-14 * condition**2 * 10
    score = process.score(x_t, x_0, t)
    assert (score + eps / schedule.sigma(t)).abs().item() <= 1e-14 * condition**2 * 10


@given(chains(), FINITE, FINITE)
def test_the_posterior_is_bayes_rule(chain, x, noise):
    process, t, s = chain
    assume(s > 0)
    x_0, x_t = torch.tensor([x], dtype=torch.float64), torch.tensor([noise], dtype=torch.float64)
    posterior = process.posterior(x_t, x_0, t, s)
    for x_s in (posterior.mean, posterior.mean + 2 * posterior.std, posterior.mean - posterior.std):
        joint = process.one_step(x_s, t, s).log_prob(x_t) + process.marginal(x_0, s).log_prob(x_s)
        by_bayes = joint - process.marginal(x_0, t).log_prob(x_t)
        scale = 1 + joint.abs().item() + process.marginal(x_0, t).log_prob(x_t).abs().item()
        assert posterior.log_prob(x_s).item() == pytest.approx(by_bayes.item(), abs=1e-10 * scale)


@given(schedules(), st.data())
def test_a_respaced_chain_has_the_signal_and_the_posterior_of_its_times(schedule, data):
    process = Process(schedule)
    steps = data.draw(st.integers(1, process.T))
    visited = times(schedule, steps, data.draw(st.sampled_from(sorted(SPACINGS))))
    chain = process.respaced(visited)
    rising = visited[::-1]
    assert len(visited) - 1 == chain.T
    for k, t in enumerate(rising):
        assert chain.schedule.abar(k) == schedule.abar(t)
    for k in range(1, chain.T + 1):
        ours, theirs = chain.posterior_coefficients(k, k - 1), process.posterior_coefficients(rising[k], rising[k - 1])
        assert ours == theirs
        assert chain.schedule.beta(k) == process.schedule.beta(rising[k], rising[k - 1])


@given(FINITE, st.floats(-8, 3), FINITE, st.floats(-8, 3))
def test_a_divergence_is_never_negative_and_zero_only_for_itself(mean, log_var, other_mean, other_log_var):
    ours, theirs = (
        Gaussian(torch.tensor([m], dtype=torch.float64), v) for m, v in ((mean, log_var), (other_mean, other_log_var))
    )
    assert ours.kl(theirs).item() >= 0 and ours.kl(ours).item() == 0
    expected = torch.distributions.kl_divergence(
        *(torch.distributions.Normal(g.mean, math.exp(g.log_var / 2)) for g in (ours, theirs))
    )
    assert ours.kl(theirs).item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
