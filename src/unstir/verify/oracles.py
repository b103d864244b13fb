"""Ideal denoisers, the reference for samplers and networks, checked by linear algebra, integration and plain sums."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from unstir.theory.oracle import FiniteData, GaussianData, MixtureData
from unstir.verify import exact
from unstir.verify.check import absolute, check, relative, relative_to_size
from unstir.verify.exact import float64, normal

_TIMES = (10, 100, 500, 1000)


@check(1e-11, "conditioning of a Gaussian")
def _oracle_gaussian() -> Iterator[float]:
    """E[x_0 | x_t] = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m) for data N(m, S).

    estimate, covariance, log-density and loss floor of GaussianData, 12 values per image, t = 10, 100, 500, 1000, with
    linear solves; relative, to the largest element of vectors and matrices
    """
    table, eye = exact.linear(), torch.eye(12, dtype=torch.float64)
    factor, m, x = normal("factor", 12, 12) / 3, normal("mean", 12), normal("x_t", 5, 12)
    S, x_t = factor @ factor.mT, x.view(5, 3, 2, 2)
    data = GaussianData(m.view(3, 2, 2), S)
    for t in _TIMES:
        alpha, sigma = table.alpha(t), table.sigma(t)
        noisy = alpha**2 * S + sigma**2 * eye
        solved = torch.linalg.solve(noisy, (x - alpha * m).mT)
        remaining = S - alpha**2 * S @ torch.linalg.solve(noisy, S)
        log_prob = -0.5 * ((x - alpha * m).mT * solved).sum(0) - 0.5 * torch.logdet(2 * math.pi * noisy)
        yield relative_to_size(data.estimate(x_t, alpha, sigma).flatten(1), m + alpha * (S @ solved).mT)
        yield relative_to_size(data.conditional_covariance(alpha, sigma), remaining)
        yield relative(data.log_prob(x_t, alpha, sigma), log_prob)
        yield relative(data.spread(x_t, alpha, sigma), remaining.trace().expand(5) / 12)
        yield relative(data.loss_floor(alpha, sigma), alpha**2 / sigma**2 * remaining.trace().item() / 12)
    yield relative_to_size(data.estimate(0.5 * x_t, 0.5, 0.0).flatten(1), x)


@check(1e-10, "Bayes' rule")
def _oracle_mixture() -> Iterator[float]:
    """E[x_0 | x_t] of a mixture of Gaussians, its spread and the density of x_t.

    MixtureData, 3 components of two correlated values, t = 10, 100, 500, 1000, with sums over a grid of 701 x 701
    images; absolute
    """
    table, eye = exact.linear(), torch.eye(2, dtype=torch.float64)
    weights = float64([0.5, 0.3, 0.2])
    means = float64([[0.5, 0.2], [-0.6, 0.3], [0.1, -0.7]])
    entries = [[0.1, 0.06, 0.08], [0.05, 0.0, 0.2], [0.09, -0.05, 0.07]]
    covariances = float64([[[a, b], [b, d]] for a, b, d in entries])
    data = MixtureData(weights, means, covariances)
    side = torch.linspace(-3.5, 3.5, 701, dtype=torch.float64)
    grid, x = torch.cartesian_prod(side, side), 0.7 * normal("x_t", 4, 2)
    parts = torch.stack([_log_density(grid, m, S) for m, S in zip(means, covariances, strict=True)])
    log_mass = (parts + weights.log()[:, None]).logsumexp(0) + 2 * math.log(0.01)  # the area of a cell
    for t in _TIMES:
        alpha, sigma = table.alpha(t), table.sigma(t)
        log_joint = torch.stack([_log_density(alpha * grid, row, sigma**2 * eye) for row in x]) + log_mass
        weight = log_joint.softmax(1)
        mean = weight @ grid
        yield absolute(data.log_prob(x, alpha, sigma), log_joint.logsumexp(1))
        yield absolute(data.estimate(x, alpha, sigma), mean)
        yield absolute(data.spread(x, alpha, sigma), (weight @ grid.square() - mean.square()).mean(1))


def _log_density(x: Tensor, m: Tensor, S: Tensor) -> Tensor:
    """log N(x; m, S) for rows x, [n, 2], by the inverse of a 2 x 2 matrix."""
    a, b, d = S[0, 0].item(), S[0, 1].item(), S[1, 1].item()
    u, v = (x - m).unbind(1)
    det = a * d - b * b
    return -0.5 * (d * u * u - 2 * b * u * v + a * v * v) / det - math.log(2 * math.pi) - 0.5 * math.log(det)


@check(1e-10, "Bayes' rule")
def _oracle_finite() -> Iterator[float]:
    """E[x_0 | x_t] = sum_i w_i y_i, w = softmax( -||x_t - alpha y_i||^2 / (2 sigma^2) ), for N images y_i.

    FiniteData, 20 images in uint8 and float64, t = 10, 100, 500, 1000, with sums in plain Python; absolute, the
    log-density relative
    """
    table = exact.linear()
    pixels = (64 * normal("pixels", 20, 3, 2, 2) + 128).clamp(0, 255).to(torch.uint8)
    floats = pixels.double() / 127.5 - 1
    for t in _TIMES:
        alpha, sigma = table.alpha(t), table.sigma(t)
        x = alpha * floats[:4] + sigma * normal("noise", 4, 3, 2, 2)
        direct = [_brute_force(row, floats.flatten(1).tolist(), alpha, sigma) for row in x.flatten(1).tolist()]
        means, spreads, log_probs = zip(*direct, strict=True)
        for data in (FiniteData(pixels), FiniteData(floats, chunk=7)):
            yield absolute(data.estimate(x, alpha, sigma).flatten(1), float64(means))
            yield absolute(data.spread(x, alpha, sigma), spreads)
            yield relative(data.log_prob(x, alpha, sigma), log_probs)
    near = 0.5 * floats[:4] + 0.1 * normal("nearby", 4, 3, 2, 2)
    nearest = floats[[int((0.5 * floats - one).flatten(1).square().sum(1).argmin()) for one in near]]
    yield absolute(FiniteData(pixels).estimate(near, 0.5, 0.0), nearest)


def _brute_force(
    x: list[float], images: list[list[float]], alpha: float, sigma: float
) -> tuple[list[float], float, float]:
    """(E[x_0 | x_t], trace Cov / D, log p(x_t)) of N images, computed one image and one pixel at a time."""
    D, squares = len(x), [math.fsum((a - alpha * b) ** 2 for a, b in zip(x, y, strict=True)) for y in images]
    least = min(squares)
    weights = [math.exp((least - square) / (2 * sigma**2)) for square in squares]
    total = math.fsum(weights)
    mean = [math.fsum(w * y[i] for w, y in zip(weights, images, strict=True)) / total for i in range(D)]
    spread = sum(w * math.dist(y, mean) ** 2 for w, y in zip(weights, images, strict=True)) / total / D
    log_prob = math.log(total / len(images)) - least / (2 * sigma**2) - D / 2 * math.log(2 * math.pi * sigma**2)
    return mean, spread, log_prob
