"""A weighting, a distribution of the times, and a loss of your own.

Weighting and times are functions of the noise schedule: `PYTHONPATH=examples unstir train examples/parts.toml`. A loss
takes the place of the squared error: `PYTHONPATH=examples unstir train digits --loss.objective loss:huber`.
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


@unstir.loss
def huber(denoiser: unstir.Conditioned, x_0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor, delta: float = 1.0):
    """Half the squared error up to delta, linear beyond it: errors of few pixels count for less."""
    process = denoiser.process
    raw = denoiser(process.diffuse(x_0, t, eps), t).raw
    target = denoiser.parameterization.target(process.schedule, x_0, t, eps)
    return torch.nn.functional.huber_loss(raw, target, reduction="none", delta=delta).flatten(1).mean(1)
