"""Schedules against closed forms, exact decimal arithmetic, diffusers' tables, and the values of the papers."""

import math
from decimal import Decimal, getcontext
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unstir.errors import UserError
from unstir.theory import schedule
from unstir.theory.schedule import NoiseSchedule, cosine, linear, sigmoid, times, zero_terminal_snr

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


def test_linear_has_the_published_last_value():
    assert linear().abar(1000) == pytest.approx(4.0358297653757e-5, rel=1e-13, abs=0)


def test_linear_is_exact_where_float32_is_not():
    getcontext().prec = 60
    made, product = linear(), Decimal(1)
    for t in range(1, 1001):
        beta = Decimal("0.0001") + (Decimal("0.02") - Decimal("0.0001")) * (t - 1) / 999
        product *= 1 - beta
        assert made.sigma(t) ** 2 == pytest.approx(float(1 - product), rel=1e-12, abs=0)
        assert made.beta(t) == pytest.approx(float(beta), rel=1e-11, abs=0)


def test_betas_are_taken_literally_for_other_lengths():
    made = linear(500, 1e-4, 0.028)
    assert made.beta(1) == pytest.approx(1e-4, rel=1e-12, abs=0) and made.beta(500) == pytest.approx(
        0.028, rel=1e-12, abs=0
    )


def test_cosine_is_clipped_and_its_abar_recomputed():
    made = cosine()
    assert made.abar(1000) == pytest.approx(2.4e-9, rel=0.02)
    assert made.beta(1000) == pytest.approx(0.999, rel=1e-9, abs=0)
    at = lambda t: math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    for t in (1, 250, 500, 900):
        assert made.abar(t) == pytest.approx(at(t) / at(0), rel=1e-10, abs=0)


def test_sigmoid_follows_its_curve():
    made = sigmoid()
    logistic = lambda t: 1 / (1 + math.exp(-(t / 1000 * 6 - 3)))
    for t in (1, 300, 500, 990):
        assert made.abar(t) == pytest.approx(
            (logistic(1000) - logistic(t)) / (logistic(1000) - logistic(0)), rel=1e-9, abs=0
        )
    assert made.abar(500) == pytest.approx(0.5, rel=1e-9, abs=0)


@pytest.mark.parametrize(("name", "made"), [("linear", linear()), ("squaredcos_cap_v2", cosine())])
def test_tables_equal_diffusers(name, made):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule=name).alphas_cumprod.double()
    ours = made.log_abar[1:].exp()
    assert ((ours - theirs) / theirs).abs().max() < 3e-4  # theirs are float32
    betas = torch.tensor([made.beta(t) for t in range(1, 1001)], dtype=torch.float64)
    exact = torch.cumprod(1 - betas, 0)
    assert ((ours - exact) / exact).abs().max() < 1e-10


def test_zero_terminal_snr_moves_only_the_end():
    made = zero_terminal_snr(linear())
    assert made.alpha(1000) == 0 and made.sigma(1000) == 1 and made.log_snr(1000) == -math.inf
    assert made.alpha(1) == pytest.approx(linear().alpha(1), rel=1e-12, abs=0)
    assert made.beta(1000) == 1


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
    crowded = spacing in ("quadratic", "log_snr")  # whole times repeat near 1
    assert len(visited) <= steps + 1 if crowded else len(visited) == steps + 1
    assert visited[-1] == 0 and visited[0] <= T and len(visited) >= 2
    assert all(a > b for a, b in pairwise(visited))


def test_spacings_as_named():
    made = linear()
    assert times(made, 4) == [1000, 750, 500, 250, 0]
    assert times(made, 4, "leading") == [751, 501, 251, 1, 0]
    assert times(made, 4, "linspace") == [1000, 667, 334, 1, 0]
    assert times(made, 4, "quadratic") == [1000, 562, 250, 62, 0]
    for spacing in ("trailing", "leading", "linspace"):
        assert times(linear(10, 0.01, 0.2), 10, spacing) == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("made", [linear(), cosine(), zero_terminal_snr(linear())], ids=["linear", "cosine", "zero"])
def test_log_snr_spacing_is_even_in_the_log_snr(made):
    visited = times(made, 20, "log_snr")
    finite = [t for t in visited if t and made.abar(t) > 0]
    assert visited[-2:] == [1, 0] and visited[0] == 1000
    gaps = [made.log_snr(s) - made.log_snr(t) for t, s in pairwise(finite[2:15])]
    assert max(gaps) < 2 * min(gaps)  # as even as whole times allow, away from the ends


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: times(linear(), 1200), "steps <= 1000"),
        (lambda: times(linear(), 0), "1..1000"),
        (lambda: times(linear(), 5, "even"), "trailing, leading, linspace"),
        (lambda: linear(1000, 0.02, 1e-4), "beta_1 <= beta_T"),
        (lambda: linear(1), "at least 2"),
        (lambda: sigmoid(start=3, end=-3), "start < end"),
    ],
)
def test_mistakes_are_named_with_their_remedy(call, says):
    with pytest.raises(UserError, match=says):
        call()


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
