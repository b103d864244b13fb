"""Schedules, spacings, weightings, parameterisations and the process: tables, bounds, refusals, what always holds."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.distributions import Normal

from refusals import mistake
from unstir.errors import UserError
from unstir.parts import OURS
from unstir.theory import schedule
from unstir.theory.parameterization import (
    PARAMETERIZATIONS,
    VARIANCES,
    check_variance,
    chosen_variance,
    error_at_each_time,
    log_variance,
)
from unstir.theory.process import Gaussian, Process
from unstir.theory.schedule import (
    SPACINGS,
    NoiseSchedule,
    cosine,
    from_betas,
    linear,
    sigmoid,
    times,
    zero_terminal_snr,
)
from unstir.theory.weighting import loss_weights

ALL = [linear(), cosine(), sigmoid(), linear(50, 0.01, 0.3), cosine(7)]


@pytest.mark.parametrize("made", ALL, ids=lambda s: f"T{s.T}")
def test_tables_begin_clean_and_fall(made):
    assert made.abar(0) == 1 and made.sigma(0) == 0 and made.log_snr(0) == math.inf
    table = made.log_abar
    assert table.dtype == torch.float64 and len(table) == made.T + 1
    assert (table[1:] < table[:-1]).all()
    for t in (1, made.T // 2, made.T):
        assert made.alpha(t) ** 2 + made.sigma(t) ** 2 == pytest.approx(1, rel=1e-15, abs=0)
        assert math.exp(made.log_snr(t)) == pytest.approx(made.abar(t) / (1 - made.abar(t)), rel=1e-9, abs=0)


def test_gather_is_float64_until_the_cast():
    made, t = linear(), torch.tensor([1, 10, 999])
    alpha, sigma = made.gather(t, torch.zeros(3, 1, 2, 2))
    assert alpha.shape == (3, 1, 1, 1) and alpha.dtype == torch.float32
    assert sigma[0].item() == torch.tensor(made.sigma(1)).float().item()
    assert made.gather(10, torch.zeros(1)) == (made.alpha(10), made.sigma(10))


@given(st.integers(2, 400), st.data())
def test_any_spacing_gives_that_many_falling_times(T, data):
    steps = data.draw(st.integers(1, T))
    spacing = data.draw(st.sampled_from(sorted(schedule.SPACINGS)))
    visited = times(linear(T, 1e-4, 0.02), steps, spacing)
    crowded = spacing in ("quadratic", "log_snr") or spacing.endswith("_open")  # whole times repeat
    assert len(visited) <= steps + 1 if crowded else len(visited) == steps + 1
    assert visited[-1] == 0 and visited[0] <= T and len(visited) >= 2
    assert all(a > b for a, b in pairwise(visited))


@pytest.mark.parametrize(
    ("call", "key"),
    [
        *((lambda steps=steps: times(linear(100), steps, "trailing"), "steps") for steps in (0, 101)),
        (lambda: times(linear(), 5, "even"), "spacing"), (lambda: sigmoid(start=3, end=-3), "start"),
        *((lambda betas=betas: linear(3, *betas), "beta_1") for betas in ((0, 0.5), (0.6, 0.5), (0.5, 1))),
        *((lambda make=make, T=T: make(T), "T") for make in (linear, cosine, sigmoid) for T in (0, 1)),
        *((lambda curve=curve: sigmoid(3, *curve), "start") for curve in ((1, 1, 1), (0, 1, 0))),
    ],
)  # fmt: skip
def test_mistakes_are_named(call, key):
    assert mistake(call).key == key


@pytest.mark.parametrize("table", [[0.0], [0.0, 0.0], [-0.1, -0.2], [0.0, -1.0, -0.5]])
def test_a_table_that_is_no_schedule_is_refused(table):
    with pytest.raises(ValueError, match="log_abar"):
        NoiseSchedule(torch.tensor(table, dtype=torch.float64))
    with pytest.raises(ValueError, match="float64"):
        NoiseSchedule(torch.tensor([0.0, -1.0]))


def test_times_outside_the_chain_are_refused():
    for t in (-1, 1001):
        with pytest.raises(ValueError, match=r"outside 0\.\.1000"):
            linear().abar(t)
    with pytest.raises(ValueError, match="later t"):
        linear().beta(3, 3)


def test_a_table_has_a_step_and_betas_are_shares():
    assert NoiseSchedule(torch.tensor([0.0, -1.0], dtype=torch.float64)).T == 1
    with pytest.raises(ValueError, match="with T >= 1"):
        NoiseSchedule(torch.zeros(1, dtype=torch.float64))
    assert from_betas(torch.tensor([0.5, 1.0], dtype=torch.float64)).abar(2) == 0
    for betas in ([0.0], [0.5, -0.1], [1.1], [math.nan]):
        with pytest.raises(ValueError, match="beta"):
            from_betas(torch.tensor(betas, dtype=torch.float64))


def test_the_sigmoid_is_its_formula_at_another_temperature():
    for t in (1, 37, 500):
        logistic = lambda t: 1 / (1 + math.exp(-(6 * t / 1000 - 3) / 0.5))
        share = (logistic(1000) - logistic(t)) / (logistic(1000) - logistic(0))
        assert sigmoid(tau=0.5).abar(t) == pytest.approx(share, rel=1e-9)


def test_each_spacing_visits_its_times():
    made = linear(100)
    assert times(made, 5, "trailing") == [100, 80, 60, 40, 20, 0]
    assert times(made, 5, "leading") == [81, 61, 41, 21, 1, 0]
    assert times(made, 5, "linspace") == [100, 75, 50, 26, 1, 0] and times(made, 1, "linspace") == [100, 0]
    assert times(made, 5, "quadratic") == [100, 64, 36, 16, 4, 0]
    even = [made.log_snr(t) for t in times(made, 5, "log_snr")[:-1]]
    step = (made.log_snr(1) - made.log_snr(100)) / 4
    assert even == pytest.approx([made.log_snr(100) + step * i for i in range(5)], abs=0.3)
    assert times(made, 1, "log_snr") == [100, 0]
    dark = zero_terminal_snr(made)
    assert times(dark, 5, "log_snr")[:2] == [100, 99] and times(dark, 5, "log_snr")[-2:] == [1, 0]
    assert times(dark, 1, "log_snr") == [100, 0]
    for spacing in ("trailing", "leading", "linspace"):
        assert times(made, 100, spacing) == list(range(100, -1, -1))


def test_eps_is_refused_where_its_image_is_no_float32_number():
    for made, kept in ((linear(1000, 1e-4, 0.5), 2.2e-67), (linear(20_000), 1.1e-44)):
        assert made.alpha(made.T) == pytest.approx(kept, rel=0.05)
        assert f"is {kept:.1e}," in str(mistake(PARAMETERIZATIONS["eps"].check, made))
        for name in ("x0", "v"):
            PARAMETERIZATIONS[name].check(made)
    assert "predict=" in str(mistake(PARAMETERIZATIONS["eps"].check, linear(10_000, 1e-4, 0.5)))
    least = linear(13_600)  # alpha_T is a little above the least
    PARAMETERIZATIONS["eps"].check(least)
    image = PARAMETERIZATIONS["eps"].x0(least, torch.full((1, 1, 2, 2), 10.0), least.T, torch.full((1, 1, 2, 2), 1e6))
    assert image.isfinite().all()


SCHEDULE = linear()


@pytest.mark.parametrize(
    "schedule", [linear(), cosine(), zero_terminal_snr(linear())], ids=["linear", "cosine", "zero"]
)
@pytest.mark.parametrize("name", OURS["weighting"])
def test_weights_are_finite_everywhere(schedule, name):
    kinds = ("x0", "v") if schedule.abar(1000) == 0 else ("eps", "x0", "v")
    for kind in kinds:
        if schedule.abar(1000) == 0 and name in ("min_snr", "p2"):
            with pytest.raises(UserError, match=f"weighting='{name}' is 0 at t = T"):
                loss_weights(name, schedule, PARAMETERIZATIONS[kind])
            continue
        weights = loss_weights(name, schedule, PARAMETERIZATIONS[kind])
        assert weights.shape == (1001,) and weights.dtype == torch.float64
        assert weights.isfinite().all() and weights[0] == 0 and (weights[1:] > 0).all()


@pytest.mark.parametrize("kind", PARAMETERIZATIONS.values(), ids=PARAMETERIZATIONS)
def test_simple_weighs_every_time_alike(kind):
    assert (loss_weights("simple", SCHEDULE, kind)[1:] == 1).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
@pytest.mark.parametrize(("name", "parameter"), [("min_snr", "gamma"), ("p2", "gamma"), ("p2", "k")])
def test_a_parameter_that_is_no_positive_number_is_refused(name, parameter, value):
    with pytest.raises(UserError, match=f"{parameter}={value} "):
        loss_weights(name, SCHEDULE, PARAMETERIZATIONS["eps"], {parameter: value})


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


PROCESS = Process(linear())


@pytest.mark.parametrize(("t", "s"), [(5, 5), (5, 6), (0, 0), (1001, 3), (5, -1)])
def test_times_in_the_wrong_order_are_refused(t, s):
    with pytest.raises(ValueError, match="0 <= s < t <= 1000"):
        PROCESS.posterior_coefficients(t, s)


@pytest.mark.parametrize(("t", "s"), [(60, 1), (60, 27), (33, 1), (2, 1), (60, 0), (2, 0)])
def test_a_long_step_keeps_the_little_that_is_left_of_the_image(t, s):
    """The scale is a product of sqrt(1 - beta); from the beta of the whole step, near 1, rounding would lose it."""
    process = Process(from_betas(torch.full((60,), 0.5, dtype=torch.float64)))
    mean = process.one_step(torch.ones(1, dtype=torch.float64), t, s).mean.item()
    assert mean == pytest.approx(0.5 ** ((t - s) / 2), rel=1e-13, abs=0)


def test_the_step_to_the_image_takes_the_small_variance_of_the_one_before_it():
    for T in (1, 2, 3):
        process = Process(from_betas(torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)[:T]))
        at_x_0, log_small, log_large = process.step(1, torch.zeros(1))
        assert at_x_0 == process.posterior_coefficients(1, 0)[1] and log_large == process.log_variances(1, 0)[1]
        assert log_small == (process.log_variances(2, 1)[0] if T > 1 else log_large)
        several = process.step(torch.arange(1, T + 1), torch.zeros(T, 1, dtype=torch.float64))
        for t in range(1, T + 1):
            assert [each[t - 1].item() for each in several] == list(process.step(t, torch.zeros(1)))


def test_a_variance_is_the_small_the_large_or_one_between_that_was_learned():
    fraction = torch.tensor([0.0, 0.25, 1.0])
    assert log_variance("small", -3.0, -1.0) == -3.0 and log_variance("large", -3.0, -1.0) == -1.0
    assert log_variance("learned", -3.0, -1.0, fraction).tolist() == [-3.0, -2.5, -1.0]
    for kind, part in (("learned", None), ("auto", fraction)):
        with pytest.raises(ValueError, match=f"'{kind}'"):
            log_variance(kind, -3.0, -1.0, part)
    chosen = {of: chosen_variance("auto", *of) for of in ((True, True), (True, False), (False, True), (False, False))}
    assert list(chosen.values()) == ["learned", "learned", "large", "small"]
    assert all(chosen_variance(kind, True, True) == kind for kind in VARIANCES)
    for kind in ("auto", *VARIANCES):
        check_variance(kind, learned=True, measured=True)
    check_variance("large", learned=False, measured=False)
    for kind, learned, measured in (("learned", False, True), ("optimal", True, False), ("none", True, True)):
        raised = mistake(check_variance, kind, learned, measured)
        assert (raised.key, raised.given) == ("variance", kind)


@pytest.mark.parametrize("schedule", [linear(50, 0.002, 0.25), zero_terminal_snr(linear(50, 0.002, 0.25))])
def test_errors_at_few_times_give_those_at_all(schedule):
    """An error that is a power of the SNR is met at every time between those measured, and stays beyond them."""
    power = lambda t: math.exp(-0.7 * schedule.log_snr(t))
    found = error_at_each_time(schedule, (2, 9, 30), [power(t) for t in (2, 9, 30)]).tolist()
    assert math.isnan(found[0]) and len(found) == 51
    assert found[2:31] == pytest.approx([power(t) for t in range(2, 31)], rel=1e-12)
    assert found[1] == pytest.approx(power(2), rel=1e-12) and found[31:] == pytest.approx([power(30)] * 20, rel=1e-12)
    ends = error_at_each_time(schedule, (1, 50), [0.01, 0.5]).tolist()
    assert (ends[1], ends[50]) == (pytest.approx(0.01), pytest.approx(0.5)) and ends[1:] == sorted(ends[1:])


def pair(mean, std):
    mean = torch.tensor(mean, dtype=torch.float64)
    return Gaussian(mean, torch.tensor(2 * math.log(std), dtype=torch.float64)), Normal(mean, std)


def test_the_density_equals_torchs():
    ours, theirs = pair([0.1, -2.0, 3.0], 0.7)
    x = torch.tensor([0.3, 0.3, -4.0], dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-13, atol=0)


def test_log_var_may_be_a_number():
    as_number = Gaussian(torch.zeros(3, dtype=torch.float64), math.log(0.49))
    as_tensor, _ = pair([0.0] * 3, 0.7)
    x = torch.tensor([0.3, 1.0, -4.0], dtype=torch.float64)
    torch.testing.assert_close(as_number.log_prob(x), as_tensor.log_prob(x))
    torch.testing.assert_close(as_number.sample(x), 0.7 * x)
    torch.testing.assert_close(as_number.kl(pair([0.2] * 3, 1.1)[0]), as_tensor.kl(pair([0.2] * 3, 1.1)[0]))
    assert as_number.std == pytest.approx(0.7) and as_number.var == pytest.approx(0.49)


def test_discretised_mass_is_exact_far_in_the_tail():
    # Bins 30 std away, where the tanh approximation of the CDF and a plain difference of CDFs are both useless.
    x, std = torch.tensor([100 / 127.5 - 1], dtype=torch.float64), 0.02
    for sign in (1, -1):
        mean = sign * x + sign * 30 * std
        log_mass = Gaussian(mean, 2 * math.log(std)).discretised_log_prob(sign * x)
        near, far = (30 * std - 1 / 255) / std, (30 * std + 1 / 255) / std
        log_tail = lambda z: torch.special.log_ndtr(torch.tensor(-z, dtype=torch.float64))
        expected = log_tail(near) + torch.log(-torch.expm1(log_tail(far) - log_tail(near)))
        assert log_mass.item() == pytest.approx(expected.item(), rel=1e-12, abs=0)
        assert -500 < log_mass.item() < -400


def test_the_log_snr_of_a_batch_is_that_of_each_time():
    for made in (linear(50), zero_terminal_snr(cosine(50))):
        of_batch = made.log_snr(torch.tensor([0, 1, 25, 50]))
        assert of_batch.dtype == torch.float32
        assert of_batch.tolist() == pytest.approx([made.log_snr(t) for t in (0, 1, 25, 50)], rel=1e-6)
