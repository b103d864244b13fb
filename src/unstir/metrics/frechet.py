"""The Fréchet distance between two sets of features, each taken for a Gaussian.

Dowson & Landau 1982 give the distance between two Gaussians, W_2^2 in today's words:

    d^2 = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^(1/2) C_b C_a^(1/2))^(1/2))

Heusel et al. 2017 apply it to the features of images. Their FID is this formula on one particular Inception network;
on the features of `classifier` the figure is *FD-classifier*, never FID, and compares with no published FID.

The trace of the last root is the sum of the singular values of C_a^(1/2) C_b^(1/2). Both roots come from symmetric
eigendecompositions; nothing is complex, and no root is taken of a product already rounded, which would turn errors of
1e-16 in the null space of a singular covariance into errors of 1e-8.

The estimate is biased upwards, in proportion to 1/n (Chong & Forsyth 2020): compare figures of equal n alone.
"""

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.errors import UserError
from unstir.randomness import Key


@dataclass(frozen=True, eq=False)
class Moments:
    """The ``mean`` [F] and ``covariance`` [F, F] (divided by n - 1) of n features, both float64."""

    mean: Tensor
    covariance: Tensor
    n: int


def moments(features: Tensor) -> Moments:
    """The moments of ``features`` [N, F], in float64. Raises UserError for fewer than two, which have no covariance."""
    n = len(features)
    if n < 2:
        raise UserError(f"a distance between sets was asked for {n} images; give at least 2, better thousands")
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return Moments(mean, centred.T @ centred / (n - 1), n)


def frechet(a: Moments, b: Moments) -> float:
    """The squared Fréchet distance between the Gaussians of these moments, >= 0, in squared units of the features."""
    shift = a.mean - b.mean
    cross = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    squared = shift @ shift + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(float(squared), 0.0)  # rounding may leave -1e-16 between equals


def bootstrap(features_a: Tensor, moments_b: Moments, repeats: int = 20, seed: int = 0) -> float:
    """The standard error of frechet(moments(features_a), moments_b) from the choice of ``features_a``, [N, F].

    The deviation of the distance over ``repeats`` (>= 2) sets of N drawn from ``features_a`` with replacement
    (Efron 1979). Right where the sets differ (measured on Gaussians: within 20 %); where they do not, and the distance
    is bias alone, it is up to twice too large, for drawing with replacement doubles that bias.
    """
    n, slots = len(features_a), torch.arange(len(features_a))
    return statistics.stdev(
        frechet(moments(features_a[randomness.integers(Key(seed, "bootstrap", repeat, slots), 0, n - 1)]), moments_b)
        for repeat in range(repeats)
    )


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance [F, F]; eigenvalues that rounding made negative count as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
