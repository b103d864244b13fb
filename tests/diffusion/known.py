"""Denoisers whose every output is known: a smooth stand-in for a network, and the exact one of Gaussian data."""

import math

import torch

from unstir.diffusion.denoiser import Prediction, at_each_time
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear

PROCESS = Process(linear())


def network(x, t):
    """A stand-in for a trained network's noise prediction: smooth, bounded, different at every time."""
    return torch.tanh(x * (0.5 + 0.4 * math.sin(t / 90.0))) + 0.1 * math.cos(t / 17.0)


def denoise_of(process):
    kind = PARAMETERIZATIONS["eps"]
    return lambda x, t: Prediction(kind.x0(process.schedule, x, t, network(x, t)), network(x, t))


def known(data, process):
    """The exact denoiser of known data (`theory.oracle`)."""

    @at_each_time
    def denoise(x, t):
        x0 = data.estimate(x, process.schedule.alpha(t), process.schedule.sigma(t))
        return Prediction(x0, process.eps(x, x0, t))

    return denoise


def gaussian_denoise(process, mean, std):
    """The exact denoiser of scalar data N(mean, std^2)."""

    def denoise(x, t):
        alpha, sigma = process.schedule.alpha(t), process.schedule.sigma(t)
        v = alpha**2 * std**2 + sigma**2
        eps = sigma * (x - alpha * mean) / v
        return Prediction((x - sigma * eps) / alpha if alpha else mean + 0 * x, eps)

    return denoise
