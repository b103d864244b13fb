"""How much the error at each time counts in the simple loss, a function only of the schedule.

The papers state a weighting for the error of the image, w(SNR) || x_0 - x_0_hat ||^2. The error of the network's output
F is that error divided by c_out^2, so its weight is w c_out^2 (`of_output`). For eps prediction c_out^2 = 1 / SNR, for
x0 it is 1, for v it is 1 / (1 + SNR).

    simple         weight 1 on F itself (Ho et al. 2020, eq. 14)
    min_snr        min(SNR, gamma)                (Hang et al. 2023; gamma = 5)
    truncated_snr  max(SNR, 1)                    (Salimans & Ho 2022, sec. 4)
    p2             SNR / (k + SNR)^gamma          (Choi et al. 2022: 1 / (k + SNR)^gamma on eps)

Each returns float64 [T+1], of which the entry of t = 0 is not used, and raises UserError for an option that is no
finite number above 0.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unstir import parts
from unstir.errors import UserError
from unstir.theory.parameterization import Parameterization
from unstir.theory.schedule import NoiseSchedule


def of_output(weights: Tensor, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
    """The weights of the error of the network's output of those of the image's error: both float64 [T+1]."""
    abar, var = torch.exp(schedule.log_abar), -torch.expm1(schedule.log_abar)
    c_out = torch.as_tensor(parameterization.c_out(abar.sqrt(), var.sqrt()), dtype=torch.float64)
    return weights * c_out**2


@parts.weighting
def simple(schedule: NoiseSchedule) -> Tensor:
    """1 at every time."""
    return torch.ones(schedule.T + 1, dtype=torch.float64)


@parts.weighting
def min_snr(schedule: NoiseSchedule, parameterization: Parameterization, gamma: float = 5.0) -> Tensor:
    """min(SNR, gamma) on the error of the image."""
    _check_positive(gamma=gamma)
    return of_output(schedule.snr.clamp(max=gamma), schedule, parameterization)


@parts.weighting
def truncated_snr(schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
    """max(SNR, 1) on the error of the image."""
    return of_output(schedule.snr.clamp(min=1), schedule, parameterization)


@parts.weighting
def p2(schedule: NoiseSchedule, parameterization: Parameterization, gamma: float = 1.0, k: float = 1.0) -> Tensor:
    """SNR / (k + SNR)^gamma on the error of the image."""
    _check_positive(gamma=gamma, k=k)
    return of_output(schedule.snr / (k + schedule.snr) ** gamma, schedule, parameterization)


def _check_positive(**options: float) -> None:
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise UserError(name, value, "must be positive and finite", "5 is usual for min_snr, 1 for p2")


def loss_weights(
    name: str,
    schedule: NoiseSchedule,
    parameterization: Parameterization,
    options: Mapping[str, parts.Option] = MappingProxyType({}),
) -> Tensor:
    """The weight of the squared error at each time, float64 [T+1], 0 at t = 0: a weighting of ours or MODULE:NAME.

    Raises UserError as `parts.make`, and for weights that are not finite or not above 0 at t = T.
    """
    also: dict[str, Any] = {"section": "weighting_options", "parameterization": parameterization}
    given: Any = parts.make("weighting", name, schedule, options=options, **also)
    if not isinstance(given, Tensor) or given.shape != (schedule.T + 1,):
        raise UserError("weighting", name, f"must return a tensor of T + 1 = {schedule.T + 1} numbers")
    weights = torch.cat((torch.zeros(1, dtype=torch.float64), given[1:].double()))
    if not bool((weights >= 0).all() and weights.isfinite().all()):
        raise UserError("weighting", name, "gives weights that are negative or not finite")
    if not weights[-1] > 0:
        others = {"weighting": "simple"}, {"weighting": "truncated_snr"}
        raise UserError("weighting", name, "is 0 at t = T, where every sampler starts", others)
    return weights
