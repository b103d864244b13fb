"""The Fréchet distance between two sets of features, each taken for a Gaussian.

Dowson & Landau 1982 give the distance between two Gaussians, W_2^2 in today's words:

    d^2 = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^(1/2) C_b C_a^(1/2))^(1/2))

Heusel et al. 2017 apply it to the features of images. Their FID is this formula on one particular Inception network; on
the features of `classifier` the figure is *FD-classifier*, and compares with no published FID.

The trace of the last root is the sum of the singular values of C_a^(1/2) C_b^(1/2). These are also the ones of
Z C_b^(1/2), where Z are the centred features over sqrt(n - 1), so that C_a = Z^T Z. The one root comes from a symmetric
eigendecomposition; nothing is complex, and no root is taken of a product already rounded, which would turn errors of
1e-16 in the null space of a singular covariance into errors of 1e-8.

Its bias, upwards, falls as 1/n (Chong & Forsyth 2020): compare figures of equal n, or see `distances.infinite_fd`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unstir.metrics.figures import error_of_halves, two_halves


@dataclass(frozen=True, eq=False)
class Moments:
    """The ``mean`` [F] and ``covariance`` [F, F] (divided by n - 1) of n features, both float64."""

    mean: Tensor
    covariance: Tensor
    n: int

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance, float64 [F, F], computed once.

        Eigenvalues below F eps times the largest, which rounding alone makes of zeros, count as 0.
        """
        values, vectors = torch.linalg.eigh(self.covariance)
        noise = len(values) * torch.finfo(torch.float64).eps * values[-1]
        root: Tensor = (vectors * torch.where(values > noise, values, 0).sqrt()) @ vectors.T
        return root


def moments(features: Tensor) -> Moments:
    """The moments of ``features`` [N, F], N >= 2, in float64."""
    n = len(features)
    mean = features.double().mean(0)
    centred = features.double() - mean
    return Moments(mean, centred.T @ centred / (n - 1), n)


def frechet_of(features: Tensor, reference: Moments) -> float:
    """The squared distance of ``features`` [N, F], N >= 2, to the Gaussian of ``reference``, to 1e-9 of the traces."""
    apart, crossed = _crossed(features, reference)
    tall = crossed if len(crossed) > crossed.shape[1] else crossed.T
    cross = torch.linalg.svdvals(torch.linalg.qr(tall, mode="r").R).sum()
    return max(float(apart - 2 * cross), 0.0)  # rounding may leave -1e-16 between equals


def standard_error(
    features: Tensor, reference: Moments, repeats: int = 10, seed: int = 0, strata: Tensor | None = None
) -> float:
    """The standard error of frechet_of(features, reference) from the choice of ``features``, [N, F], N >= 4.

    To second order in the choice, the distance is a sum over images plus a sum over pairs of them, of variances s and
    q. Half the difference of the distances of two halves of the images has variance s + 2 q, and the mean of the two
    varies by q from one split into halves to another: the first less the second is s + q. Bounded below by half of
    the first, s / 2 + q, for ``repeats`` random splits know q only roughly. (A bootstrap draws with replacement, which
    doubles the bias.) ``strata``, int64 [N], are classes in fixed shares.
    """
    return float(error_of_halves(*halves(features, reference, repeats, seed, strata)))


def halves(
    features: Tensor, reference: Moments, repeats: int, seed: int, strata: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of the distances of two halves of ``features`` [N, F] and half their difference: float64 [repeats] each.

    A repeat splits the features at random anew, in the shares of their ``strata`` (`two_halves`). Distances are right
    to 1e-6 of the traces, by eigenvalues, which are several times as fast.
    """
    parts = [two_halves(len(features), seed, "halves", repeat, strata) for repeat in range(repeats)]
    pairs = [[_quickly(features[part], reference) for part in both] for both in parts]
    first, second = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    return (first + second) / 2, (first - second) / 2


def _crossed(features: Tensor, reference: Moments) -> tuple[Tensor, Tensor]:
    """The squared difference of the means and both traces, summed, and Z C_b^(1/2) [N, F] (see above)."""
    mean = features.double().mean(0)
    scaled, shift = (features.double() - mean).div_(math.sqrt(len(features) - 1)), mean - reference.mean
    return shift @ shift + scaled.square().sum() + reference.covariance.trace(), scaled @ reference.root


def _quickly(features: Tensor, reference: Moments) -> float:
    """`frechet_of` to 1e-6 of the traces."""
    apart, crossed = _crossed(features, reference)
    wide = crossed if len(crossed) < crossed.shape[1] else crossed.T
    return float(apart - 2 * torch.linalg.eigvalsh(wide @ wide.T).clamp(min=0).sqrt().sum())
