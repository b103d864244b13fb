"""A small network trained on Gaussian data reaches the least possible loss and does not go below it.

For data N(m, s^2 I) the best noise prediction is affine in x_t and leaves a squared error of abar_t s^2 / v_t, with
v_t = abar_t s^2 + 1 - abar_t; its mean over t is the floor (Pierret & Galerne 2025). A trained network that came out
below it would know more than x_t says.
"""

import math

import pytest
import torch
from torch import nn

from unstir import randomness
from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.loss import denoising_loss
from unstir.randomness import Key
from unstir.theory.oracle import GaussianData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear

T, MEAN, BATCH, STEPS = 1000, 0.3, 512, 1500
FLOOR = 0.173053406


class Small(nn.Module):
    """A perceptron of one pixel and of its time in cosines."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(17, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x, t, label=None):
        angle = math.pi * (t[:, None] + 0.5) / T * torch.arange(16)
        return self.layers(torch.cat((x.flatten(1), angle.cos()), 1)).view_as(x)


def batch(std, stream, step, size):
    slots = torch.arange(size)
    draw = lambda name: randomness.normal(Key(0, f"{stream} {name}", step, slots), (1, 1, 1))
    return MEAN + std * draw("data"), draw("noise"), randomness.integers(Key(0, f"{stream} time", step, slots), 1, T)


@pytest.mark.slow
def test_a_trained_network_reaches_the_floor_and_stays_above_it():
    std = 0.5
    process = Process(linear())
    torch.manual_seed(0)
    denoiser = Denoiser(Small(), process, PARAMETERIZATIONS["eps"])
    optimizer = torch.optim.Adam(denoiser.net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        x_0, eps, t = batch(std, "train", step, BATCH)
        loss = denoising_loss(denoiser, x_0, t, eps).total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    parts = []
    for part in range(8):
        x_0, eps, _ = batch(std, "held out", part, 200 * T)
        with torch.no_grad():
            losses = denoising_loss(denoiser, x_0, torch.arange(1, T + 1).repeat(200), eps).total
        parts.append(losses.double().view(200, T))
    losses = torch.cat(parts)
    mean = losses.mean().item()
    error = (losses.var(0).mean() / losses.numel()).sqrt().item()  # every t equally often: within-time variance alone
    floor = (
        sum(
            GaussianData(torch.tensor([MEAN]).double(), torch.tensor([[std**2]]).double()).loss_floor(
                process.schedule.alpha(t), process.schedule.sigma(t)
            )
            for t in range(1, T + 1)
        )
        / T
    )
    assert floor == pytest.approx(FLOOR, abs=1e-9)
    assert error < 0.0025 * floor  # so that the 4 below are within 1%
    assert floor - 4 * error < mean < 1.02 * floor
