"""The Gaussian against torch.distributions and by summing its discretised mass."""

import math

import pytest
import torch
from torch.distributions import Normal

from unstir.theory.process import Gaussian


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
