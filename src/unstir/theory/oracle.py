"""Data whose ideal denoiser is known exactly, so that samplers and networks can be measured against it.

For x_t = alpha x_0 + sigma eps with standard normal eps, the least squared error belongs to the posterior mean
E[x_0 | x_t]. It has a closed form for a Gaussian, for a mixture of Gaussians and for a finite set of images (a training
set, say), and so has the density p of x_t. Tweedie's formula (Efron 2011) joins the two:

    grad log p(x_t) = (alpha E[x_0 | x_t] - x_t) / sigma^2

Each kind of data has the same three methods, of ``x_t`` [B, *shape] of any float dtype, ``alpha`` in [0, 1] and
``sigma`` in [0, inf), not both zero. Results have the dtype and device of x_t. The estimate is shaped like x_t; it is
the data's mean at alpha = 0 and the limit of small sigma at sigma = 0. The spread, trace Cov[x_0 | x_t] / D, is the
squared error per element that the estimate is left with, [B], and log_prob is log p(x_t) of the whole image in nats.

Everything is computed in float64 and cast once at the end: at sigma = 0.01 the exponents of a 3x32x32 image are
differences of numbers near 1e7, whose last bit in float32 is 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unstir.pixels import from_uint8

_NEGLIGIBLE = 1e-30  # a posterior weight below it cannot change a float64 sum, whatever the number of images


@dataclass(frozen=True, eq=False)
class GaussianData:
    """N(mean, covariance) with a full covariance, over all D elements of an image.

    ``mean`` is float64 of the image's shape, D elements; ``covariance`` is float64 [D, D], symmetric and positive
    semi-definite (zero is a point mass). At sigma = 0 a singular covariance makes the estimate the orthogonal
    projection of x_t / alpha on the affine space where the data lie.
    """

    mean: Tensor
    covariance: Tensor

    def estimate(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x_t] = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m), for the mean m and covariance S."""
        gain = _ratio(alpha * self._spectrum[0], self._noisy_variances(alpha, sigma))
        return self._image(gain * self._coordinates(x_t, alpha), x_t)

    def spread(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """trace Cov[x_0 | x_t] / D: [B], the same for every x_t."""
        return self._remaining(alpha, sigma).mean().to(x_t).expand(len(_flat(x_t, self.mean)))

    def log_prob(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """log N(x_t; alpha mean, alpha^2 covariance + sigma^2 I) in nats: [B]."""
        var = self._noisy_variances(alpha, sigma)
        squares = self._coordinates(x_t, alpha).square() / var
        return (-0.5 * (squares + var.log() + math.log(2 * math.pi)).sum(1)).to(x_t)

    def conditional_covariance(self, alpha: float, sigma: float) -> Tensor:
        """Cov[x_0 | x_t]: float64 [D, D], the same for every x_t."""
        return (self._spectrum[1] * self._remaining(alpha, sigma)) @ self._spectrum[1].mT

    def loss_floor(self, alpha: float, sigma: float) -> float:
        """The least mean squared error per element of a prediction of eps: alpha^2 / sigma^2 * trace Cov[x_0|x_t] / D.

        Computed as the mean over the covariance's eigenvalues of alpha^2 lambda / (alpha^2 lambda + sigma^2), in 0..1.
        Its limit at sigma = 0 is rank / D: an eps that was multiplied by nothing can only be guessed.
        """
        return _ratio(alpha**2 * self._spectrum[0], self._noisy_variances(alpha, sigma)).mean().item()

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """The covariance's eigenvalues [D] and eigenvectors [D, D]; a value that rounding may have made is 0."""
        values, axes = torch.linalg.eigh(self.covariance)
        return values.where(values > len(values) * torch.finfo(values.dtype).eps * values[-1], 0.0), axes

    def _noisy_variances(self, alpha: float, sigma: float) -> Tensor:
        """The eigenvalues of x_t's covariance: [D]."""
        return alpha**2 * self._spectrum[0] + sigma**2

    def _remaining(self, alpha: float, sigma: float) -> Tensor:
        """The eigenvalues of Cov[x_0 | x_t]: [D]."""
        return _ratio(sigma**2 * self._spectrum[0], self._noisy_variances(alpha, sigma))

    def _coordinates(self, x_t: Tensor, alpha: float) -> Tensor:
        """x_t - alpha mean along the eigenvectors: float64 [B, D]."""
        return (_flat(x_t, self.mean) - alpha * self.mean.reshape(-1)) @ self._spectrum[1]

    def _image(self, coordinates: Tensor, like: Tensor) -> Tensor:
        return (self.mean.reshape(-1) + coordinates @ self._spectrum[1].mT).view(like.shape).to(like)


@dataclass(frozen=True, eq=False)
class MixtureData:
    """A mixture of K Gaussians, each with a full covariance.

    ``weights`` is float64 [K], not negative, of sum one; ``means`` float64 [K, *shape]; ``covariances`` float64
    [K, D, D], each as in `GaussianData`. At sigma = 0 no covariance may be singular: which such component x_t came
    from would be a matter of rounding.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @cached_property
    def _components(self) -> tuple[GaussianData, ...]:
        return tuple(GaussianData(m, S) for m, S in zip(self.means, self.covariances, strict=True))

    def estimate(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x_t]: the components' estimates, weighted by their posterior probabilities."""
        probability = self._log_joint(x_t, alpha, sigma).softmax(0)
        return torch.einsum("kb,kb...->b...", probability, self._each(GaussianData.estimate, x_t, alpha, sigma)).to(x_t)

    def spread(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """trace Cov[x_0 | x_t] / D: [B], the components' spreads and the spread of their estimates."""
        probability = self._log_joint(x_t, alpha, sigma).softmax(0)
        estimates = self._each(GaussianData.estimate, x_t, alpha, sigma).flatten(2)
        between = (estimates - torch.einsum("kb,kbd->bd", probability, estimates)).square().mean(2)
        return (probability * (self._each(GaussianData.spread, x_t, alpha, sigma) + between)).sum(0).to(x_t)

    def log_prob(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """log sum_k w_k N(x_t; alpha m_k, alpha^2 S_k + sigma^2 I) in nats: [B]."""
        return self._log_joint(x_t, alpha, sigma).logsumexp(0).to(x_t)

    def _log_joint(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """log w_k + log p_k(x_t): float64 [K, B]."""
        return self.weights.log()[:, None] + self._each(GaussianData.log_prob, x_t, alpha, sigma)

    def _each(self, method: Callable[..., Tensor], x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """A method's result for every component: float64 [K, B, ...]."""
        x = _flat(x_t, self.means[0]).view(x_t.shape)
        return torch.stack([method(part, x, alpha, sigma) for part in self._components])


@dataclass(frozen=True, eq=False)
class FiniteData:
    """N images, each as probable as the others.

    The estimate is that of a network which has memorised its training set; at sigma = 0 it is the image nearest to
    x_t / alpha, or the mean of those that tie. ``images`` is [N, *shape] of a float dtype, or of uint8, whose pixels k
    stand for k/127.5 - 1. ``chunk`` of them at a time are made float64.
    """

    images: Tensor
    chunk: int = 256

    def estimate(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x_t] = sum_i w_i y_i over the images y_i, w = softmax( -||x_t - alpha y_i||^2 / (2 sigma^2) )."""
        return self._weights_and_mean(x_t, alpha, sigma)[1].view(x_t.shape).to(x_t)

    def spread(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """trace Cov[x_0 | x_t] / D: [B], with an absolute error near 1e-16 times the mean square of a pixel."""
        weights, mean = self._weights_and_mean(x_t, alpha, sigma)
        return ((weights @ self._square_norms - mean.square().sum(1)).clamp(min=0) / mean.shape[1]).to(x_t)

    def log_prob(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """log( sum_i N(x_t; alpha y_i, sigma^2 I) / N ) in nats: [B], for sigma > 0. Scores are Tweedie's formula's."""
        half_squares = self._half_squares(x_t, alpha)
        log_scale = self.images[0].numel() * math.log(sigma * math.sqrt(2 * math.pi))
        return ((-half_squares / sigma**2).logsumexp(1) - math.log(len(self.images)) - log_scale).to(x_t)

    def _weights_and_mean(self, x_t: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """The images' posterior weights, float64 [B, N], and E[x_0 | x_t], float64 [B, D]."""
        half_squares = self._half_squares(x_t, alpha)
        gap = half_squares.amin(1, keepdim=True) - half_squares
        weights = (gap / sigma**2 if sigma > 0 else gap.where(gap == 0, -math.inf)).softmax(1)
        mean = gap.new_zeros(len(x_t), self.images[0].numel())
        # at little noise few images have any weight, and the others are not read again; NaN is kept, so that it shows
        kept = (weights < _NEGLIGIBLE).all(0).logical_not().nonzero()[:, 0]
        for part in self._parts(len(kept)):
            mean = mean + weights[:, kept[part]] @ self._rows(kept[part])
        return weights, mean

    def _half_squares(self, x_t: Tensor, alpha: float) -> Tensor:
        """||x_t - alpha y_i||^2 / 2 for every image y_i: float64 [B, N], up to rounding of the norms' size."""
        x = _flat(x_t, self.images[0])
        products = torch.cat([x @ self._rows(part).mT for part in self._parts(len(self.images))], 1)
        return x.square().sum(1, keepdim=True) / 2 - alpha * products + alpha**2 / 2 * self._square_norms

    def _rows(self, index: Tensor | slice) -> Tensor:
        """The images at ``index`` as float64 [n, D]."""
        rows = self.images[index].reshape(-1, self.images[0].numel())
        return from_uint8(rows, torch.float64) if rows.dtype == torch.uint8 else rows.double()

    def _parts(self, count: int) -> list[slice]:
        return [slice(first, first + self.chunk) for first in range(0, count, self.chunk)]

    @cached_property
    def _square_norms(self) -> Tensor:
        return torch.cat([self._rows(part).square().sum(1) for part in self._parts(len(self.images))])


def _flat(x: Tensor, image: Tensor) -> Tensor:
    """``x`` [B, *shape] as float64 [B, D] where ``image`` is."""
    return x.to(image.device, torch.float64).reshape(len(x), image.numel())


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where both are 0."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)
