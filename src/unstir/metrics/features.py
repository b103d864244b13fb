"""Networks whose features compare images: one interface, whatever network it is.

A `Network` has a name, a hash of its weights and, for a batch of images, features and perhaps class logits. Where its
classes are those of the store, it says how well it tells them apart (`Trust`). Values in units of their own, which no
network of pictures knows, have principal components; docs/evaluation.md says what becomes of missing values.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from unstir import parts, randomness
from unstir.data import Store
from unstir.errors import UserError
from unstir.pixels import known, to_uint8
from unstir.progress import counting
from unstir.runs.checkpoint import content_hash
from unstir.significance import TAIL, binomial_tail

BATCH = 64

NEAR = ("precision", "recall", "density", "coverage")  # figures of neighbourhoods, besides the distances "fd" and "kid"
SKILL = 0.3  # the least of a classifier whose features are used; docs/evaluation.md has what they see at which skill


@dataclass(frozen=True)
class Trust:
    """How a classifier did: ``right`` of ``num`` held-out images, of which ``most`` are of the most frequent class.

    *Chance* is to name the most frequent class every time. Features measure where the classifier is decidedly right
    more often (the exact binomial tail is below `significance.TAIL`) and (accuracy - chance) / (1 - chance), Cohen's
    kappa, is `SKILL` or more.
    """

    right: int
    num: int
    most: int

    @property
    def accuracy(self) -> float | None:
        """The share of held-out images classified rightly; None where nothing was held out."""
        return self.right / self.num if self.num else None

    @property
    def above_chance(self) -> bool:
        """Whether the accuracy is decidedly above chance."""
        return self.num > 0 and binomial_tail(self.right, self.num, self.most / self.num) < TAIL

    @property
    def given(self) -> bool:
        """Whether the features may be used."""
        return self.above_chance and self.right - self.most >= SKILL * (self.num - self.most)

    def entry(self) -> dict[str, Any]:
        """What a protocol says of it, as JSON has it."""
        accuracy, chance = (round(of / self.num, 4) if self.num else None for of in (self.right, self.most))
        skill = {"above_chance": self.above_chance, "used": self.given}
        return {"accuracy": accuracy, "chance": chance, "num": self.num, **skill}


class Outputs(NamedTuple):
    """What one pass found in N images: ``features`` float64 [N, F], and class ``logits`` float64 [N, K] or None."""

    features: Tensor
    logits: Tensor | None = None


class Network:
    """What turns images, uint8 [N, C, H, W] in 0..255, into features; a subclass says how a batch is turned.

    ``name`` is what the features are called, such as "classifier", in figures and file names; ``hash`` is the SHA-256
    (hex) of the weights. ``titles`` are the names of figures ("fd", "kid") that are published under their own.
    ``trust`` says how it tells the store's own classes apart; None for a network whose logits, if any, are of others.
    """

    name: str
    hash: str
    titles: ClassVar[Mapping[str, str]] = {}
    trust: Trust | None

    @torch.inference_mode()
    def outputs(self, images: Tensor, index: Tensor | None = None, batch_size: int = BATCH) -> Outputs:
        """Features and logits of ``images``, or of those with an ``index``, int64 [N]. Raises UserError as `_batch`."""
        index, done = torch.arange(len(images)) if index is None else index, 0
        features, logits = [], []
        with counting("computing features", "images") as count:
            for some in torch.split(index, batch_size):
                found = self._batch(images[some])
                features.append(found.features.double().cpu())
                logits += [] if found.logits is None else [found.logits.double().cpu()]
                done += len(some)
                count(done, len(index))
        return Outputs(torch.cat(features), torch.cat(logits) if logits else None)

    def features(self, images: Tensor, batch_size: int = BATCH) -> Tensor:
        """The features of ``images``, float64 [N, F]. Raises UserError as `outputs`."""
        return self.outputs(images, batch_size=batch_size).features

    def _batch(self, images: Tensor) -> Outputs:
        """Features [B, F] and logits [B, K] of a batch, in any float type on any device; UserError for other images."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Extractor(Network):
    """Features of any module or function ``net`` of images, [B, C, H, W] as the store has them, to float [B, F].

    Images are uint8 in 0..255, or float32 in units of the data; it resizes and scales them itself. Of a tuple, as
    torch-fidelity's extractors return, the first are used. ``name`` goes into the names of figures ("FD-dinov2") and
    files. ``hash`` is by default that over name, class, weights and buffers, or over the source of a function: another
    layer or arithmetic of the same weights needs another name. ``part`` is MODULE:NAME of a part (`extractor`).
    """

    name: str
    net: Callable[[Tensor], Any]
    hash: str = ""
    part: str = ""
    trust = None

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum():
            raise UserError("name", self.name, "must be of letters, digits and -, for it goes into file names")
        if isinstance(self.net, nn.Module):
            self.net.eval()
        if not self.hash:
            kind = type(self.net).__qualname__ if isinstance(self.net, nn.Module) else inspect.getsource(self.net)
            object.__setattr__(self, "hash", content_hash(self._weights(), f"{self.name} {kind}"))

    def _weights(self) -> dict[str, Tensor]:
        return self.net.state_dict() if isinstance(self.net, nn.Module) else {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self._weights().values()), torch.empty(0)).device

    def _batch(self, images: Tensor) -> Outputs:
        with parts.guarded("features", self.part):
            answer = self.net(images.to(self.device))
        features = answer[0] if isinstance(answer, tuple) else answer
        if features.ndim != 2 or len(features) != len(images):
            raise UserError("net", list(features.shape), f"must be [N, F] of {len(images)} images")
        return Outputs(features)


def extractor(name: str, device: torch.device, options: Mapping[str, parts.Option]) -> Network:
    """The network of a part that `parts.features` decorates, on a device; errors as `parts.make`."""
    parts.allow(parts.Name("features")(name))
    short = name.rpartition(":")[2]
    net = parts.make("features", name, options=options, section=f"features_options.{short}", device=str(device))
    if isinstance(net, Network):
        return net
    net = net.to(device) if isinstance(net, nn.Module) else net
    made = Extractor(short.replace("_", "-"), net, part=name)
    return replace(made, hash=content_hash({}, f"{made.hash} {sorted(options.items())}")) if options else made


def wrong_images(images: Tensor, due: str) -> UserError:
    """The error for ``images`` of another type or shape than is ``due``, such as "uint8 [N, 3, H, W]"."""
    return UserError("images", f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}", f"must be {due}")


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
