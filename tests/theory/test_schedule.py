"""Schedules, spacings, weightings and parameterisations: their tables, their bounds and what is refused."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusals import mistake, refusing
from unstir.errors import UserError
from unstir.parts import OURS
from unstir.runs.toml import from_dict
from unstir.theory import schedule
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.schedule import NoiseSchedule, cosine, from_betas, linear, sigmoid, times, zero_terminal_snr
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


def test_eps_is_refused_where_the_signal_is_gone():
    schedule = zero_terminal_snr(linear())
    with refusing("predict", remedy={"predict": "v"}):
        PARAMETERIZATIONS["eps"].check(schedule)


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


def test_an_unknown_weighting_is_refused():
    assert "weighting='snr'" in str(mistake(from_dict, {"loss": {"weighting": "snr"}}, "test"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
@pytest.mark.parametrize(("name", "parameter"), [("min_snr", "gamma"), ("p2", "gamma"), ("p2", "k")])
def test_a_parameter_that_is_no_positive_number_is_refused(name, parameter, value):
    with pytest.raises(UserError, match=f"{parameter}={value} "):
        loss_weights(name, SCHEDULE, PARAMETERIZATIONS["eps"], {parameter: value})
