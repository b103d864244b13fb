"""Times drawn by a density of their log-SNR, against scipy's densities and against counting."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unstir import randomness
from unstir.diffusion.loss import EVEN_SHARE, TimeTable, middles, probabilities, running_sums
from unstir.errors import UserError
from unstir.randomness import Key
from unstir.theory import schedule


@pytest.mark.parametrize("made", [schedule.cosine(), schedule.linear(), schedule.sigmoid(2000)])
@pytest.mark.parametrize(
    ("name", "mean", "scale", "theirs"),
    [
        ("laplace", 0.0, 0.5, stats.laplace(0, 0.5)),  # Hang et al. 2024
        ("normal", 0.5, 1.5, stats.norm(0.5, 1.5)),
        ("normal", 2.4, 2.4, stats.norm(2.4, 2.4)),  # log sigma ~ N(-1.2, 1.2), Karras et al. 2022
    ],
)
def test_the_share_below_a_time_is_that_of_the_density(made, name, mean, scale, theirs):
    p = probabilities(made, name, mean, scale)
    assert EVEN_SHARE == 0.1  # a tenth
    assert p.sum().item() == pytest.approx(1, abs=1e-12) and (p >= EVEN_SHARE / made.T).all()
    by_density = (p - EVEN_SHARE / made.T) / (1 - EVEN_SHARE)
    middle = lambda t: (made.log_snr(t) + made.log_snr(t + 1)) / 2
    cut = theirs.cdf([middle(made.T - 1), middle(1)])  # lambda has ends; the density is cut there
    for t in range(2, made.T - 1, 37):
        expected = (cut[1] - theirs.cdf(middle(t))) / (cut[1] - cut[0])
        assert by_density[:t].sum().item() == pytest.approx(expected, abs=0.006)


def test_a_time_without_signal_is_drawn_as_often_as_the_one_before_it():
    p = probabilities(schedule.zero_terminal_snr(schedule.cosine(50)), "normal", -3.0, 2.0)
    assert p[-1] == p[-2] > p[0] and p.isfinite().all()
    assert probabilities(schedule.zero_terminal_snr(schedule.cosine(2)), "laplace", 0.0, 0.5).tolist() == [0.5, 0.5]


def test_draws_follow_the_probabilities_and_no_other_slot():
    p = probabilities(schedule.cosine(20), "laplace", 0.0, 1.0)
    slots = torch.arange(40_000)
    t = TimeTable(p).draw(Key(0, "time", 3, slots))
    counts = torch.bincount(t, minlength=21)[1:]
    assert t.min() >= 1 and stats.chisquare(counts.numpy(), (p * len(t)).numpy()).pvalue > 0.001
    assert torch.equal(TimeTable(p).draw(Key(0, "time", 3, slots[17:40])), t[17:40])


def test_a_time_is_drawn_from_the_edge_below_it_to_before_the_next(monkeypatch):
    monkeypatch.setattr(randomness, "uniform", lambda key, dtype: torch.tensor([0, 0.2499, 0.25, 1], dtype=dtype))
    p = torch.tensor([1, 0, 3], dtype=torch.float64)  # whose sum need not be one
    assert TimeTable(p).draw(Key(0, "time", 0, torch.arange(4))).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize(
    ("name", "mean", "scale"),
    [("cauchy", 0, 1), ("normal", math.nan, 1), ("normal", 0, math.inf), ("laplace", 0, 0)],
)
def test_what_is_no_density_is_refused(name, mean, scale):
    with pytest.raises(UserError, match="density=|mean="):
        probabilities(schedule.linear(), name, mean, scale)


@pytest.mark.parametrize(
    ("T", "num", "times"),
    [(1000, 10, range(50, 1000, 100)), (20, 2, (5, 15)), (20, 20, range(1, 21)), (4, 10, range(1, 5)), (7, 1, (4,))],
)
def test_times_are_the_middles_of_equal_parts(T, num, times):
    assert middles(T, num) == tuple(times)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 1000])
def test_running_sums_are_those_of_numpy(n):
    values = torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    np.testing.assert_allclose(running_sums(values).numpy(), np.cumsum(values.numpy()), rtol=1e-14)
