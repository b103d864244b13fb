"""Loss weightings against the papers' formulas, and between parameterisations."""

import pytest
import torch

from unstir.diffusion.loss import Objective
from unstir.errors import UserError
from unstir.runs.toml import from_dict
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, zero_terminal_snr
from unstir.theory.weighting import WEIGHTINGS, loss_weights

SCHEDULE = linear()


def snr(t):
    abar = SCHEDULE.abar(t)
    return abar / (1 - abar)


@pytest.mark.parametrize("t", [1, 37, 500, 1000])
def test_weights_on_the_noise_are_those_of_the_papers(t):
    weight = lambda name, **options: loss_weights(name, SCHEDULE, PARAMETERIZATIONS["eps"], **options)[t].item()
    assert weight("simple") == 1
    assert weight("min_snr") == pytest.approx(min(snr(t), 5) / snr(t), rel=1e-9, abs=0)
    assert weight("min_snr", min_snr_gamma=2) == pytest.approx(min(snr(t), 2) / snr(t), rel=1e-9, abs=0)
    assert weight("truncated_snr") == pytest.approx(max(snr(t), 1) / snr(t), rel=1e-9, abs=0)
    assert weight("p2") == pytest.approx(1 / (1 + snr(t)), rel=1e-9, abs=0)
    assert weight("p2", p2_gamma=0.5, p2_k=2) == pytest.approx((2 + snr(t)) ** -0.5, rel=1e-9, abs=0)
    velocity = loss_weights("min_snr", SCHEDULE, PARAMETERIZATIONS["v"])[t].item()
    assert velocity == pytest.approx(min(snr(t), 5) / (snr(t) + 1), rel=1e-9, abs=0)


@pytest.mark.parametrize("name", WEIGHTINGS[1:])
def test_the_loss_is_the_same_whatever_the_network_predicts(name):
    process = Process(SCHEDULE)
    x_0, eps, x_0_hat = torch.randn(3, 5, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([1, 10, 400, 900, 1000])
    x_t, losses = process.diffuse(x_0, t, eps), []
    for kind in PARAMETERIZATIONS.values():
        output = kind.target(SCHEDULE, x_0_hat, t, process.eps(x_t, x_0_hat, t))  # the output that says x_0_hat
        error = (output - kind.target(SCHEDULE, x_0, t, eps)).square().flatten(1).mean(1)
        losses.append(loss_weights(name, SCHEDULE, kind)[t] * error)
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "schedule", [linear(), cosine(), zero_terminal_snr(linear())], ids=["linear", "cosine", "zero"]
)
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_weights_are_finite_everywhere(schedule, name):
    kinds = ("x0", "v") if schedule.abar(1000) == 0 else ("eps", "x0", "v")
    for kind in kinds:
        weights = loss_weights(name, schedule, PARAMETERIZATIONS[kind])
        assert weights.shape == (1001,) and weights.dtype == torch.float64
        assert weights.isfinite().all() and weights[0] == 0 and (weights[1:1000] > 0).all()
        assert (weights[1000] > 0) == (schedule.abar(1000) > 0 or name in ("simple", "truncated_snr"))


def test_wrong_names_and_parameters_are_refused():
    with pytest.raises(UserError, match="weighting='snr' is unknown; choose one of simple, min_snr"):
        loss_weights("snr", SCHEDULE, PARAMETERIZATIONS["eps"])
    with pytest.raises(UserError, match=r"p2_k=0 must be positive"):
        loss_weights("p2", SCHEDULE, PARAMETERIZATIONS["eps"], p2_k=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
@pytest.mark.parametrize(("name", "parameter"), [("min_snr", "min_snr_gamma"), ("p2", "p2_gamma"), ("p2", "p2_k")])
def test_a_parameter_that_is_no_positive_number_is_refused(name, parameter, value):
    with pytest.raises(UserError, match=f"{parameter}={value} must be positive and finite"):
        loss_weights(name, SCHEDULE, PARAMETERIZATIONS["eps"], **{parameter: value})
    with pytest.raises(UserError, match=f"vlb_weight={value} must be positive and finite"):
        Objective("hybrid", vlb_weight=value)
    with pytest.raises(UserError, match=f"loss.{parameter}="):
        from_dict({"loss": {"weighting": name, parameter: value}}, "test")
