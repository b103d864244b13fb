"""What is random has the distribution that it should have.

Each comparison here has a false-alarm rate of at most 1e-6 / 40 (Bonferroni: forty of them at most), so that the suite
raises a false alarm with probability below 1e-6 for a fresh seed. The seed is fixed, so a pass stays a pass; set
UNSTIR_STATISTICS_SEED for a fresh one. With N = 2^20 numbers a standard deviation that is 2% off, and a mean off by a
hundredth of it, are found with the same certainty: planted ones are, below.
"""

import math
import os
from functools import cache

import pytest
import torch

from unstir import randomness
from unstir.randomness import Key
from unstir.theory.process import Process
from unstir.theory.schedule import linear

pytestmark = pytest.mark.slow

N = 2**20
SEED = int(os.environ.get("UNSTIR_STATISTICS_SEED", "0"))
COMPARISONS = 40
ALPHA = 1e-6 / COMPARISONS
Z = -torch.special.ndtri(torch.tensor(ALPHA / 2, dtype=torch.float64)).item()  # 5.6 standard errors
KS = math.sqrt(math.log(2 / ALPHA) / 2)  # of sqrt(N) times the Kolmogorov-Smirnov distance (Massart's bound)


def slots(n=N):
    return torch.arange(n)


@cache
def noise(stream="statistics", step=0):
    return randomness.normal(Key(SEED, stream, step, slots()), (1,)).flatten().double()


def is_normal(x, mean=0.0, std=1.0):
    """Whether x [N] passes as N(mean, std^2) by its mean, its variance and its Kolmogorov-Smirnov distance."""
    n = len(x)
    standard = (x - mean) / std
    sorted_cdf = torch.special.ndtr(standard.sort().values)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - sorted_cdf).abs().max(), (steps[:-1] - sorted_cdf).abs().max()).item()
    near = [
        abs(standard.mean().item()) < Z / math.sqrt(n),
        abs(standard.var().item() - 1) < Z * math.sqrt(2 / n),
        distance < KS / math.sqrt(n),
    ]
    return all(near)


def test_noise_is_standard_normal():
    assert is_normal(noise())


@pytest.mark.parametrize(
    "spoil",
    [lambda x: 1.02 * x, lambda x: x + 0.012, lambda x: x.clamp(-2.5, 2.5), lambda x: (x.abs() - 0.798) / 0.603],
    ids=["std +2%", "mean +0.012", "tails cut", "folded"],
)
def test_noise_that_is_slightly_wrong_is_found(spoil):
    assert not is_normal(spoil(noise()))


def test_neighbours_in_every_coordinate_are_uncorrelated():
    base = noise()
    others = [noise("another stream"), noise(step=1), base.roll(1)]
    others.append(randomness.normal(Key(SEED + 1, "statistics", 0, slots()), (1,)).flatten().double())
    both = randomness.normal(Key(SEED, "statistics", 0, slots(N // 2)), (2,)).double()
    pairs = [(base, other) for other in others] + [(both[:, 0], both[:, 1])]
    for first, second in pairs:
        for power in (1, 2):  # squares too: a shared radius would show there
            a, b = first**power, second**power
            correlation = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
            assert abs(correlation.item()) < Z / math.sqrt(len(a))


def test_integers_coins_and_kept_elements_come_as_often_as_they_should():
    counts = torch.bincount(randomness.integers(Key(SEED, "integers", 0, slots()), 1, 10))[1:].double()
    coins = randomness.coin(Key(SEED, "coins", 0, slots()), 0.3).double().sum()
    kept = randomness.kept(Key(SEED, "kept", 0, slots(N // 16)), 16, 0.1).double().sum()
    for count, p in (*((count, 0.1) for count in counts), (coins, 0.3), (kept, 0.9)):
        assert abs(count.item() - N * p) < Z * math.sqrt(N * p * (1 - p)) + N * 2.0**-17


def test_diffused_images_have_the_closed_forms_distribution():
    process = Process(linear())
    x_0 = torch.full((N, 1), 0.6, dtype=torch.float64)
    x_t = process.diffuse(x_0, 300, noise()[:, None]).flatten()
    marginal = process.marginal(x_0[:1], 300)
    assert is_normal(x_t, marginal.mean.item(), marginal.std)
    assert not is_normal(x_t, marginal.mean.item(), process.schedule.sigma(309))  # nine steps off in 1000
