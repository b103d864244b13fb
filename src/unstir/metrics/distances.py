"""Distances between two sets of features, float64 [N, F] of one row per image, of any network.

*The Fréchet distance* takes each set for a Gaussian. Dowson & Landau 1982 give that of two Gaussians, today's W_2^2:

    d^2 = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^(1/2) C_b C_a^(1/2))^(1/2))

FID (Heusel et al. 2017) is this formula on the features of one Inception network, *FD-classifier* on those of
`classifier`.

The trace of the last root is the sum of the singular values of C_a^(1/2) C_b^(1/2). These are also the ones of
Z C_b^(1/2), where Z are the centred features over sqrt(n - 1), so that C_a = Z^T Z. The one root comes from a symmetric
eigendecomposition. No root is taken of a product already rounded, which would turn errors of 1e-16 into errors of 1e-8.

Its bias, upwards, falls as 1/n (Chong & Forsyth 2020): compare figures of equal n, or see `infinite_fd`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unstir.metrics.figures import error_of_halves, two_halves

Matrix = npt.NDArray[np.float64]
_CHUNK = 1 << 25  # distances held at once: 256 MB
_K, _K_DENSITY = 3, 5  # the neighbours that give the size of a ball, as published: of precision, of density
ROUNDING = 1e-12  # of squared distances as x.x - 2 x.y + y.y, in parts of the largest x.x
_SEED = 2020  # torch-fidelity's own default, which published figures used


@dataclass(frozen=True, eq=False)
class Moments:
    """The ``mean`` [F] and ``covariance`` [F, F] (divided by n - 1) of n features, both float64."""

    mean: Tensor
    covariance: Tensor
    n: int

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance, float64 [F, F], computed once."""
        values, vectors = torch.linalg.eigh(self.covariance)
        # what rounding alone makes of zeros counts as 0
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
    the first, s / 2 + q, for ``repeats`` random splits know q only roughly. ``strata``, int64 [N], are classes in fixed
    shares.
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


BEND = 0.4  # times F / N is the share by which a straight line removes too much of the bias, on Gaussians


def infinite_fd(
    features: Tensor, reference: Moments, seed: int = 0, repeats: int = 10, strata: Tensor | None = None
) -> tuple[float, float]:
    """The Fréchet distance for infinitely many images like those of ``features`` [N, F], and its standard error.

    Takes N >= 2 (F + 1), or the halves' covariance is singular. The distance of n images exceeds that by b / n (Chong &
    Forsyth 2020). The line in 1/n goes through the distance of all N and the mean over ``repeats`` random splits into
    halves. These hold each image once, so that splitting adds no chance of its own to first order. Of the variances s
    and q that `standard_error` tells apart, the value has s + q + q / repeats. It may be below 0. ``strata``, int64
    [N], are classes in fixed shares. What bends the line is taken into account as on Gaussians (`BEND`). The bias of a
    finite reference stays.
    """
    n = len(features)
    means, differences = halves(features, reference, repeats, seed, strata)
    x = (1 / (n // 2) + 1 / (n - n // 2)) / 2
    whole_set = frechet_of(features, reference)
    bias = (float(means.mean()) - whole_set) / n / (x - 1 / n) / (1 + BEND * features.shape[1] / n)
    whole, share = differences.square().mean(), 1 / repeats
    variance = torch.maximum(whole - (1 - share) * means.var(), whole * (1 + share) / 2)
    return whole_set - bias, math.sqrt(float(variance))


Known = dict[tuple[int, int, int], list[float]]
"""What `kid` keeps of a reference, by the number of images that are held against it, subset size and seed."""


def kid(
    a: Tensor, b: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = _SEED, known: Known | None = None
) -> tuple[float, float]:
    """Kernel distance of ``a`` [N, F] and ``b`` [M, F], as KID is (Bińkowski et al. 2018): mean and deviation.

    The squared maximum mean discrepancy for the kernel (x.y / F + 1)^3, unbiased: its expectation is 0 for equal
    distributions, whatever the number of images, and it may come out below 0. It is the mean over ``subsets`` random
    pairs of subsets of ``subset_size``; the deviation between them is no standard error, for the subsets overlap. They
    are drawn by NumPy's generator from ``seed`` mod 2^32, which gives torch-fidelity's numbers for its ``rng_seed``.
    ``known`` keeps the part that is of ``b`` alone, for other sets of as many images as ``a``.
    """
    random, values = np.random.RandomState(seed % 2**32), []
    alike_b = ({} if known is None else known).setdefault((len(a), subset_size, seed), [])
    for number in range(subsets):
        x, y = (each.numpy()[random.choice(len(each), subset_size, replace=False)] for each in (a.cpu(), b.cpu()))
        if number == len(alike_b):
            alike_b.append(_alike(y))
        alike = _alike(x) + alike_b[number]
        across = _cubic(x, y).sum(0).sum()
        values.append(alike / (subset_size * (subset_size - 1)) - 2 * across / (subset_size * subset_size))
    return float(np.mean(values)), float(np.std(values))


def _alike(x: Matrix) -> float:
    """The sum of KID's kernel over all pairs of two different rows."""
    k = _cubic(x, x)
    return float((k.sum(1) - k.diagonal()).sum())


def _cubic(x: Matrix, y: Matrix) -> Matrix:
    """KID's kernel of each pair of rows."""
    return np.asarray((np.matmul(x, y.T) * (1.0 / x.shape[1]) + 1) ** 3)


def inception_score(logits: Tensor, splits: int = 10) -> float:
    """The Inception Score exp(E KL(p(y | x) || p(y))) of ``logits`` [N, K] (Salimans et al. 2016, section 4): 1 to K.

    The mean over ``splits`` parts (as many as images, where these are fewer) of the images in torch-fidelity's order.
    High where each image is clearly of one class, and all together of many; it uses no real images.
    """
    logits = logits[np.random.RandomState(_SEED).permutation(len(logits))].double()
    count, scores = min(splits, len(logits)), []
    for part in range(count):
        some = logits[part * len(logits) // count : (part + 1) * len(logits) // count]
        p = some.softmax(1)
        scores.append((p * (some.log_softmax(1) - p.mean(0).log())).sum(1).mean().exp().item())
    return float(np.mean(scores))


def radii(real: Tensor) -> Tensor:
    """How far each of ``real`` [M, F], M > 5, has its 3rd and its 5th neighbour among them, float64 [2, M]."""
    return _radii(_centred(real, real)[0], _K, _K_DENSITY)


def near(real: Tensor, fake: Tensor, radii: Tensor) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage of ``fake`` [N, F], N > 3, for ``real`` [M, F], whose `radii` are given.

    A set's manifold is the union of balls about its images, each out to the 3rd nearest neighbour in the set. Precision
    (0..1) is the share of fake images in that of the real ones, recall that of real images in that of the fake
    (Kynkäänniemi et al. 2019, eqs. 1 and 2). Compare both for equal numbers of images.

    Density and coverage (Naeem et al. 2020, section 3) have balls about real images alone, out to the 5th. Density is
    the number of them that a fake image lies in, over 5, in the mean over fake images: near 1 for equal distributions,
    and unlike precision not misled by one outlier's large ball. Coverage (0..1) is the share of real images with a fake
    image in their ball; for equal distributions of N = M images it is near 1 - 2^-5 (0.97). A ball holds its surface.
    Takes M (M + N) F operations.
    """
    real, fake = _centred(real, fake)
    (precise, _), (dense, covered) = _inside(fake, real, radii)
    ((recalled, _),) = _inside(real, fake, _radii(fake, _K))
    return _share(precise > 0), _share(recalled > 0), int(dense.sum()) / (_K_DENSITY * len(fake)), _share(covered)


def fidelity(real: Tensor, fake: Tensor, radii: Tensor) -> Tensor:
    """What each image of ``fake`` [N, F] adds to the means that are precision and density in `near`: float64 [2, N]."""
    real, fake = _centred(real, fake)
    (precise, _), (dense, _) = _inside(fake, real, radii)
    return torch.stack([(precise > 0).double(), dense.double() / _K_DENSITY])


def _radii(balls: Tensor, *ks: int) -> Tensor:
    """The distance of each of ``balls`` [M, F] to its k-th nearest of them, float64 [len(ks), M]."""
    pieces = torch.split(balls, max(_CHUNK // len(balls), 1))
    nearest = [torch.cdist(some, balls).topk(max(ks) + 1, largest=False).values for some in pieces]
    return torch.cat(nearest)[:, ks].T  # the nearest is the image itself


def _inside(points: Tensor, balls: Tensor, radii: Tensor) -> list[tuple[Tensor, Tensor]]:
    """How many balls each point lies in, int64 [N], and which hold a point, bool [M]; per row of ``radii`` [K, M]."""
    longest = max(float(each.square().sum(1).max()) for each in (points, balls))
    radii = (radii.square() + ROUNDING * longest).sqrt()  # surfaces are inside, where the neighbours themselves lie
    numbers = [torch.zeros(len(points), dtype=torch.int64) for _ in radii]
    covered: list[list[Tensor]] = [[] for _ in radii]
    size = max(_CHUNK // max(len(balls), len(points)), 1)
    for some, reach in zip(torch.split(balls, size), torch.split(radii, size, dim=1), strict=True):
        distances = torch.cdist(some, points)
        for row, radius in enumerate(reach):
            within = distances <= radius[:, None]
            numbers[row] += within.sum(0)
            covered[row].append(within.any(1))
    return [(number, torch.cat(of)) for number, of in zip(numbers, covered, strict=True)]


def _share(holds: Tensor) -> float:
    return int(holds.sum()) / len(holds)


def _centred(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both less the mean of the real ones: distances stay, and lose fewer digits where x.x - 2 x.y + y.y gives them."""
    mean = real.double().mean(0)
    return real.double() - mean, fake.double() - mean
