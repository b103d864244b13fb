"""A weighting of the loss and a distribution of the times of your own, both functions of the noise schedule.

Train with them by `PYTHONPATH=examples unstir train examples/parts.toml`. Another loss than a weighted squared error
needs a loop of your own, such as loop.py: pass it a function of the error and the time.
"""

import torch

import unstir
from unstir.theory.weighting import of_output


@unstir.weighting
def soft_min_snr(schedule: unstir.NoiseSchedule, parameterization, gamma: float = 5.0):
    """SNR gamma / (SNR + gamma) on the error of the image: min(SNR, gamma) without its corner."""
    snr = schedule.snr
    return of_output(snr * gamma / (snr + gamma), schedule, parameterization)


@unstir.times
def logit_normal(schedule: unstir.NoiseSchedule, mean: float = 0.0, std: float = 1.0):
    """The time's share u = t / (T + 1) of the way has a normal logit (Esser et al. 2024): the middle is drawn most."""
    u = torch.arange(1, schedule.T + 1, dtype=torch.float64) / (schedule.T + 1)
    return torch.exp(-((u.logit() - mean) ** 2) / (2 * std**2)) / (u * (1 - u))
