"""The three predictions say the same thing."""

import pytest
import torch

from refusals import refusing
from unstir.errors import UserError
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.schedule import linear, zero_terminal_snr


@pytest.mark.parametrize("name", sorted(PARAMETERIZATIONS))
def test_the_target_is_the_residual_over_c_out(name):
    schedule, t = linear(), 300
    x_0, eps = torch.randn(2, 1, 1, 4, 4, dtype=torch.float64)
    kind = PARAMETERIZATIONS[name]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = alpha * x_0 + sigma * eps
    residual = (x_0 - kind.c_skip(alpha, sigma) * x_t) / kind.c_out(alpha, sigma)
    torch.testing.assert_close(kind.target(schedule, x_0, t, eps), residual, rtol=1e-10, atol=1e-12)


def test_eps_is_refused_where_the_signal_is_gone():
    schedule = zero_terminal_snr(linear())
    with refusing("predict", remedy={"predict": "v"}):
        PARAMETERIZATIONS["eps"].check(schedule)
    for name in ("x0", "v"):
        PARAMETERIZATIONS[name].check(schedule)
        x_0, eps = torch.randn(2, 1, 1, 2, 2, dtype=torch.float64)
        kind = PARAMETERIZATIONS[name]
        torch.testing.assert_close(kind.x0(schedule, eps, 1000, kind.target(schedule, x_0, 1000, eps)), x_0)


def test_eps_is_refused_where_its_image_is_no_float32_number():
    for made, kept in ((linear(1000, 1e-4, 0.5), 2.2e-67), (linear(20_000), 1.1e-44)):
        assert made.alpha(made.T) == pytest.approx(kept, rel=0.05)
        with pytest.raises(UserError, match=f"is {kept:.1e},"):
            PARAMETERIZATIONS["eps"].check(made)
        for name in ("x0", "v"):
            PARAMETERIZATIONS[name].check(made)
    with pytest.raises(UserError, match="predict="):
        PARAMETERIZATIONS["eps"].check(linear(10_000, 1e-4, 0.5))
    least = linear(13_600)  # alpha_T is a little above the least
    PARAMETERIZATIONS["eps"].check(least)
    image = PARAMETERIZATIONS["eps"].x0(least, torch.full((1, 1, 2, 2), 10.0), least.T, torch.full((1, 1, 2, 2), 1e6))
    assert image.isfinite().all()
