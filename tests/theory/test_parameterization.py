"""The three predictions say the same thing."""

import pytest
import torch

from refusals import mistake, refusing
from unstir.errors import UserError
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.schedule import linear, zero_terminal_snr


def test_eps_is_refused_where_the_signal_is_gone():
    schedule = zero_terminal_snr(linear())
    with refusing("predict", remedy={"predict": "v"}):
        PARAMETERIZATIONS["eps"].check(schedule)


def test_eps_is_refused_where_its_image_is_no_float32_number():
    for made, kept in ((linear(1000, 1e-4, 0.5), 2.2e-67), (linear(20_000), 1.1e-44)):
        assert made.alpha(made.T) == pytest.approx(kept, rel=0.05)
        with pytest.raises(UserError, match=f"is {kept:.1e},"):
            PARAMETERIZATIONS["eps"].check(made)
        for name in ("x0", "v"):
            PARAMETERIZATIONS[name].check(made)
    assert "predict=" in str(mistake(PARAMETERIZATIONS["eps"].check, linear(10_000, 1e-4, 0.5)))
    least = linear(13_600)  # alpha_T is a little above the least
    PARAMETERIZATIONS["eps"].check(least)
    image = PARAMETERIZATIONS["eps"].x0(least, torch.full((1, 1, 2, 2), 10.0), least.T, torch.full((1, 1, 2, 2), 1e6))
    assert image.isfinite().all()
