"""The bound's definition, without its split into terms: a divergence of two Gaussians over all of x_0..x_T at once.

Data of two correlated values are N(mean, covariance), the chain has T = 8 steps. Both of its directions are written as
one Gaussian over the visited times, and E[-log p(x_0)] <= KL( q(x_0..x_T) || p(x_0..x_T) ) + H(x_0).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Prediction, at_each_time
from unstir.diffusion.likelihood import variational_bound
from unstir.theory.process import Process
from unstir.theory.schedule import linear
from unstir.verify import exact
from unstir.verify.known import nodes

MEAN = torch.tensor([0.3, -0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
TABLE = exact.linear(8, "0.05", "0.6")
EYE = torch.eye(2, dtype=torch.float64)


def gain(t: int) -> Tensor:
    """G of E[x_0 | x_t] = m + G (x_t - alpha_t m): alpha_t S (alpha_t^2 S + sigma_t^2 I)^-1, [2, 2]."""
    noisy = TABLE.abar(t) * COVARIANCE + TABLE.var(t) * EYE
    ratio: Tensor = torch.linalg.solve(noisy, COVARIANCE, left=False)
    return TABLE.alpha(t) * ratio


def entropy() -> float:
    """H(x_0) in nats."""
    return 0.5 * torch.logdet(2 * math.pi * math.e * COVARIANCE).item()


def bound(visited: Sequence[int], variance: str) -> tuple[float, float]:
    """The package's bound as an exact expectation over x_0 and noise: in nats per image and in bits per dimension."""
    n, eps, weights = nodes(2)
    x_0 = (MEAN + n @ torch.linalg.cholesky(COVARIANCE).mT).view(-1, 1, 1, 2)

    @at_each_time
    def denoise(x_t: Tensor, t: int) -> Prediction:
        return Prediction(MEAN + (x_t - TABLE.alpha(t) * MEAN) @ gain(t).mT, x_t)

    process = Process(linear(8, 0.05, 0.6))
    made = variational_bound(
        denoise, process, x_0, lambda t: eps.view_as(x_0), variance=variance, times=visited, discretised=False
    )
    return (weights @ made.nats).item(), (weights @ made.bits_per_dim).item()


def divergence(visited: Sequence[int], variance: str) -> float:
    """KL( q || p ) in nats between the joint distributions of x at the visited times."""
    mean_q, cov_q = _forward(visited)
    mean_p, cov_p = _reverse(visited, variance)
    shift = mean_p - mean_q
    quadratic = shift @ torch.linalg.solve(cov_p, shift) + torch.linalg.solve(cov_p, cov_q).trace()
    return 0.5 * float(quadratic - len(shift) + torch.logdet(cov_p) - torch.logdet(cov_q))


def _forward(visited: Sequence[int]) -> tuple[Tensor, Tensor]:
    """q's mean [2 (K+1)] and covariance: Cov(x_s, x_t) = alpha_t / alpha_s Cov(x_s, x_s) for s < t."""
    blocks = []
    for a in visited:
        row = []
        for b in visited:
            s, t = min(a, b), max(a, b)
            row.append(TABLE.alpha(t) / TABLE.alpha(s) * (TABLE.abar(s) * COVARIANCE + TABLE.var(s) * EYE))
        blocks.append(torch.cat(row, 1))
    return torch.cat([TABLE.alpha(t) * MEAN for t in visited]), torch.cat(blocks)


def _reverse(visited: Sequence[int], variance: str) -> tuple[Tensor, Tensor]:
    """p's mean and covariance: each x_s is written as an affine function of the independent normals of all steps."""
    K = len(visited)
    means, rows = [torch.zeros(2, dtype=torch.float64)], [torch.zeros(2, 2 * K, dtype=torch.float64)]
    rows[0][:, :2] = EYE
    for k, (t, s) in enumerate(pairwise(visited), start=1):
        at_x_t, at_x_0, _ = TABLE.posterior(t, s)
        step = at_x_t * EYE + at_x_0 * gain(t)
        means.append(step @ means[-1] + at_x_0 * (MEAN - TABLE.alpha(t) * gain(t) @ MEAN))
        row = step @ rows[-1]
        small = TABLE.beta(t, s) if K == 2 else TABLE.small(t, s, visited[k - 2])  # one step alone has no other
        var = TABLE.beta(t, s) if variance == "large" else small
        row[:, 2 * k : 2 * k + 2] = math.sqrt(var) * EYE
        rows.append(row)
    scale = torch.cat(rows)
    return torch.cat(means), scale @ scale.mT
