"""How much the error at each time counts in the simple loss, a function only of the schedule.

Each weighting is written for the error of the image, w(SNR) || x_0 - x_0_hat ||^2, where the papers state it; the
error of the network's output F is that error divided by c_out^2, so its weight is w c_out^2. For eps prediction
c_out^2 = 1 / SNR, for x0 it is 1, for v it is 1 / (1 + SNR).

    simple         weight 1 on F itself (Ho et al. 2020, eq. 14)
    min_snr        min(SNR, gamma)                (Hang et al. 2023; gamma = 5)
    truncated_snr  max(SNR, 1)                    (Salimans & Ho 2022, sec. 4)
    p2             SNR / (k + SNR)^gamma          (Choi et al. 2022: 1 / (k + SNR)^gamma on eps)
"""

import math

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.theory.parameterization import Parameterization
from unstir.theory.schedule import NoiseSchedule

WEIGHTINGS = ("simple", "min_snr", "truncated_snr", "p2")


def loss_weights(
    name: str,
    schedule: NoiseSchedule,
    parameterization: Parameterization,
    *,
    min_snr_gamma: float = 5.0,
    p2_gamma: float = 1.0,
    p2_k: float = 1.0,
) -> Tensor:
    """The weight of the squared error of the network's output at each time: float64 [T+1], that of t = 0 being 0.

    Raises UserError for an unknown name or a parameter that is no finite number above 0.
    """
    if name not in WEIGHTINGS:
        raise UserError("weighting", name, "is unknown", f"choose one of {', '.join(WEIGHTINGS)}")
    for parameter, value in (("min_snr_gamma", min_snr_gamma), ("p2_gamma", p2_gamma), ("p2_k", p2_k)):
        if not 0 < value < math.inf:
            raise UserError(parameter, value, "must be positive and finite", "5 is usual for min_snr_gamma, 1 for p2")
    if name == "simple":
        weights = torch.ones(schedule.T + 1, dtype=torch.float64)
        weights[0] = 0
        return weights
    abar = torch.exp(schedule.log_abar[1:])
    var = -torch.expm1(schedule.log_abar[1:])
    snr = abar / var
    of_image = {
        "min_snr": snr.clamp(max=min_snr_gamma),
        "truncated_snr": snr.clamp(min=1),
        "p2": snr / (p2_k + snr) ** p2_gamma,
    }[name]
    c_out = torch.as_tensor(parameterization.c_out(abar.sqrt(), var.sqrt()), dtype=torch.float64)
    return torch.cat((torch.zeros(1, dtype=torch.float64), of_image * c_out**2))
