"""Figures of values in units of their own, which no network of pictures knows: components, marginals and spread.

docs/evaluation.md says in which units, and what becomes of missing values.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.metrics.features import Network, Outputs
from unstir.pixels import known, to_uint8

COMPONENTS, FITTED = 16, 1000  # principal components, and the images that they are of, at most
_LEVELS = 1000  # quantiles of a marginal
_MOST = 1 << 15  # values of a channel that figures are of, about


@dataclass(frozen=True, eq=False)
class Components(Network):
    """The first principal components of a store's training images as features."""

    mean: Tensor
    deviation: Tensor
    axes: Tensor
    hash: str
    name = "pca"
    trust = None

    @classmethod
    def of(cls, store: Store) -> "Components":
        """Those of the first `FITTED` images of a random order, at most `COMPONENTS`."""
        images = store.images("train")[randomness.Order(0, "components", 0, store.count("train"))[:FITTED]].double()
        mean = torch.stack([channel[~channel.isnan()].mean() for channel in images.unbind(1)])
        deviation = torch.stack([channel[~channel.isnan()].std() for channel in images.unbind(1)])
        mean, deviation = mean.view(-1, 1, 1), deviation.where(deviation > 0, 1.0).view(-1, 1, 1)
        rows = ((images - mean) / deviation).nan_to_num(0.0).flatten(1)
        rows = rows - rows.mean(0)
        values, vectors = torch.linalg.eigh(rows @ rows.T)  # of the images, which are fewer than their values
        axes = rows.T @ vectors[:, -COMPONENTS:] / values[-COMPONENTS:].clamp(min=1e-12).sqrt()
        digest = hashlib.sha256(f"{COMPONENTS} components of {store.content_hash}".encode()).hexdigest()
        return cls(mean, deviation, axes, digest)

    def scaled(self, images: Tensor) -> Tensor:
        """Images in deviations of each channel about its mean, 0 where they are missing: float64 [N, C, H, W]."""
        return ((images.double() - self.mean) / self.deviation).nan_to_num(0.0)

    def _batch(self, images: Tensor) -> Outputs:
        return Outputs(self.scaled(images).flatten(1) @ self.axes)


def lacking(store: Store, sets: Sequence[Tensor]) -> list[Tensor]:
    """The sets with the masks of training images, in a random order."""
    images = store.images("train")
    order = randomness.permutation(0, "masks of images", 0, len(images))
    return [torch.where(images[order[torch.arange(len(some)) % len(images)]].isnan(), torch.nan, some) for some in sets]


def spread(a: Tensor, b: Tensor) -> float:
    """By what share a channel's deviation in ``a`` is off that in ``b``, mean over those that vary; missing are NaN."""
    pairs = zip(_channels(a), _channels(b), strict=True)
    shares = [one.std() / other.std() - 1 for one, other in pairs if other.std() > 0]
    return torch.stack(shares or [torch.zeros(())]).abs().mean().item()


def marginals(a: Tensor, b: Tensor) -> float:
    """The 1-Wasserstein distance of the values of a channel in deviations of ``b`` (1 of none), mean over channels."""
    u = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    pairs = zip(_channels(a), _channels(b), strict=True)
    distances = [(one.quantile(u) - other.quantile(u)).abs().mean() / (other.std() or 1) for one, other in pairs]
    return torch.stack(distances).mean().item()


def _channels(images: Tensor) -> list[Tensor]:
    """Values that are there of each channel, at most `_MOST`, evenly chosen: float64 [n] each."""
    every = images.movedim(1, 0).flatten(1)
    every = every[:, :: max(1, every.shape[1] // _MOST) | 1].double()
    return [channel[~channel.isnan()] for channel in every]


def as_pixels(images: Tensor, store: Store) -> Tensor:
    """Images in units of the store as uint8 [N, C, H, W], to search for copies: the range of the data in 256 steps."""
    return to_uint8(known(store.scale.to_model(images), store.scale)[0]) if store.scale.is_float else images
