"""Weights of the loss at the ends, and what is refused; their formulas are the row weightings of `unstir verify`."""

import pytest
import torch

from refusals import mistake
from unstir.errors import UserError
from unstir.parts import OURS
from unstir.runs.toml import from_dict
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.schedule import cosine, linear, zero_terminal_snr
from unstir.theory.weighting import loss_weights

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
