"""The ends of the process, and what it refuses; its equations are rows of `unstir verify` (tests/verify)."""

import pytest
import torch

from unstir.theory.process import Process
from unstir.theory.schedule import linear

PROCESS = Process(linear())


def test_the_last_posterior_is_the_image_itself():
    x_0 = torch.randn(2, 3, dtype=torch.float64)
    for t in (1, 500, 1000):
        posterior = PROCESS.posterior(torch.randn(2, 3, dtype=torch.float64), x_0, t, 0)
        assert torch.equal(posterior.mean, x_0) and posterior.var == 0


@pytest.mark.parametrize(("t", "s"), [(5, 5), (5, 6), (0, 0), (1001, 3), (5, -1)])
def test_times_in_the_wrong_order_are_refused(t, s):
    with pytest.raises(ValueError, match="0 <= s < t <= 1000"):
        PROCESS.posterior_coefficients(t, s)
