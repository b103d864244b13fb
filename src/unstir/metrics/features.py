"""Networks whose features compare images: one interface, whatever network it is.

A `Network` has a name, a hash of its weights and, for a batch of images, features and perhaps class logits. Where its
classes are those of the store, it says how well it tells them apart (`Trust`). Values in units of their own, which no
network of pictures knows, have principal components; docs/evaluation.md says what becomes of missing values.

What is computed once is kept in a store's folder: a file of safetensors, with a text that says what decided the tensors
and a hash of its content in the metadata. In STORE/statistics are the features of its own images, and of noise.
"""

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from unstir import parts, randomness
from unstir.data import SPLITS, Store
from unstir.errors import UserError
from unstir.metrics.distances import Known, Moments, moments, radii
from unstir.pixels import Scale, from_uint8, known, to_uint8
from unstir.progress import counting
from unstir.randomness import Key
from unstir.runs.checkpoint import content_hash, read_tensors
from unstir.runs.files import make_folder, replacing
from unstir.significance import TAIL, binomial_tail

BATCH = 64

NEAR = ("precision", "recall", "density", "coverage")  # figures of neighbourhoods
SKILL = 0.3  # the least of a classifier whose features are used (docs/evaluation.md)


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

    Images are uint8 in 0..255, or float32 in units of the data, NaN where a value is missing; it fills, resizes and
    scales them itself. Of a tuple the first are used. ``name`` goes into the names of figures ("FD-dinov2") and files.
    ``hash`` is by default that over name, class, weights and buffers, or over the source of a function and the modules,
    arrays, numbers and texts that it names: another layer or arithmetic of the same weights needs another name.
    Anything else needs a ``hash`` (UserError). ``part`` is MODULE:NAME of a part (`extractor`).
    """

    name: str
    net: Callable[[Tensor], Any]
    hash: str = ""
    part: str = ""
    trust = None

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum():
            raise UserError("name", self.name, "must be of letters, digits and -")
        if isinstance(self.net, nn.Module):
            self.net.eval()
        if not self.hash:
            kind, weights = _identity(self.net)
            object.__setattr__(self, "hash", content_hash(weights, f"{self.name} {kind}"))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        weights = self.net.state_dict() if isinstance(self.net, nn.Module) else {}
        return next(iter(weights.values()), torch.empty(0)).device

    def _batch(self, images: Tensor) -> Outputs:
        with parts.guarded("features", self.part):
            answer = self.net(images.to(self.device))
            features = torch.as_tensor(answer[0] if isinstance(answer, tuple) else answer)
        if features.ndim != 2 or len(features) != len(images):
            raise UserError("net", list(features.shape), f"must be [N, F] of {len(images)} images")
        if not bool(features.isfinite().all()):
            raise UserError("", f"the features {self.part or self.name}", "are not finite", "fill what is NaN, missing")
        return Outputs(features)


def _identity(net: Callable[[Tensor], Any]) -> tuple[str, dict[str, Tensor]]:
    """The class or source of a module or function, and its weights. UserError for anything else."""
    if isinstance(net, nn.Module):
        return type(net).__qualname__, net.state_dict()
    try:
        source, named = inspect.getsource(net), inspect.getclosurevars(net)
    except (TypeError, OSError):
        mend = "give a function, or its hash"
        raise UserError("net", type(net).__qualname__, "is no module, and no function with a source", mend) from None
    values = {**named.globals, **named.nonlocals, "self": getattr(net, "__self__", None)}
    plain = {name: value for name, value in sorted(values.items()) if isinstance(value, int | float | str | tuple)}
    arrays = {name: value for name, value in values.items() if isinstance(value, Tensor | np.ndarray)}
    weights = {name: torch.as_tensor(value) for name, value in arrays.items()}
    for name, module in values.items():
        if isinstance(module, nn.Module):
            weights |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    return f"{source} {plain}", weights


def extractor(name: str, device: torch.device, options: Mapping[str, parts.Option]) -> Network:
    """The network of a part that `parts.features` decorates, on a device; errors as `parts.make`."""
    parts.allow(parts.Name("features")(name))
    short = parts.short_name(name)
    net = parts.make("features", name, options=options, section=f"features_options.{short}", device=str(device))
    source = inspect.getsource(parts.find("features", name))
    if isinstance(net, Network):
        return net
    net = net.to(device) if isinstance(net, nn.Module) else net
    made = Extractor(short.replace("_", "-"), net, part=name)
    return replace(made, hash=content_hash({}, f"{made.hash} {source} {sorted(options.items())}"))


def wrong_images(images: Tensor, due: str) -> UserError:
    """The error for ``images`` of another type or shape than is ``due``, such as "uint8 [N, 3, H, W]"."""
    return UserError("images", f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}", f"must be {due}")


def check_images(images: Tensor, shape: Sequence[int], scale: Scale, of: object, least: int = 0) -> None:
    """Raise UserError for images of another type or ``shape`` (C, H, W) than those ``of`` something, or too few."""
    kind = "float32" if scale.is_float else "uint8"
    if images.dtype != getattr(torch, kind) or tuple(images.shape[1:]) != tuple(shape) or len(images) < least:
        raise wrong_images(images, f"{kind} [N, {', '.join(map(str, shape))}] with N >= {least}, as those of {of}")


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
        present = [channel[~channel.isnan()] for channel in images.unbind(1)]
        mean = torch.stack([values.mean() for values in present])
        deviation = torch.stack([values.std() if len(values) > 1 else torch.zeros(()) for values in present])
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
    shares = [one.std() / other.std() - 1 for one, other in _channels(a, b) if other.std() > 0]
    return torch.stack(shares or [torch.tensor(math.nan)]).abs().mean().item()


def marginals(a: Tensor, b: Tensor) -> float:
    """The 1-Wasserstein distance of the values of a channel in deviations of ``b`` (1 of none), mean over channels."""
    u = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    shifts = [(one.quantile(u) - other.quantile(u)).abs().mean() / (other.std() or 1) for one, other in _channels(a, b)]
    return torch.stack(shifts or [torch.tensor(math.nan)]).mean().item()


def _channels(*sets: Tensor) -> list[list[Tensor]]:
    """Values of each channel of which every set has two: `_MOST` a set at most, evenly chosen: float64 [n] each."""
    every = [images.movedim(1, 0).flatten(1) for images in sets]
    some = [values[:, :: max(1, values.shape[1] // _MOST) | 1].double() for values in every]
    channels = ([values[~values.isnan()] for values in channel] for channel in zip(*some, strict=True))
    return [channel for channel in channels if min(map(len, channel)) > 1]


def as_pixels(images: Tensor, store: Store) -> Tensor:
    """Images in units of the store as uint8 [N, C, H, W], to search for copies: the range of the data in 256 steps."""
    return to_uint8(known(store.scale.to_model(images), store.scale)[0]) if store.scale.is_float else images


VERSION = 1
NOISE = "noise"
KEPT = 10_000  # images at most of which features are kept with the moments of all
_NOISE_IMAGES = 1024  # so far from anything real that their number hardly matters

NOT_KEPT = (OSError, SafetensorError, ValueError, OverflowError, KeyError, TypeError, RuntimeError, AttributeError)
"""What reading a file may raise that is not what `keep` wrote, whatever it is."""


def keep(path: Path, kind: str, text: str, tensors: Mapping[str, Tensor]) -> None:
    """Replace the file; OSError where it cannot be written."""
    # the bytes are made first, for safetensors' own writing leaves files behind when killed
    data = save(dict(tensors), {f"unstir_{kind}": text, "sha256": content_hash(tensors, text)})
    make_folder(path.parent)
    with replacing(path) as partial:
        partial.write_bytes(data)


def kept(path: Path, kind: str) -> tuple[str, dict[str, Tensor]]:
    """The text and the tensors of a file. Raises one of `NOT_KEPT` for anything else than `keep` wrote."""
    metadata, views = read_tensors(path)
    tensors, text = {name: view.clone() for name, view in views.items()}, metadata[f"unstir_{kind}"]
    if metadata["sha256"] != content_hash(tensors, text):
        raise ValueError(f"{path} is damaged")
    return text, tensors


@dataclass(frozen=True, eq=False)
class Reference:
    """``moments`` of the features of n images, and the features of the first ``KEPT`` of them in random order.

    ``known`` is what `kid` keeps of them, since many sets are held against one reference.
    """

    moments: Moments
    features: Tensor
    known: Known = field(default_factory=dict, init=False, repr=False)
    _radii: dict[int, list[Tensor]] = field(default_factory=dict, init=False, repr=False)

    def subsets(self, size: int, most: int) -> list[tuple[Tensor, Tensor]]:
        """``most`` disjoint subsets of ``size`` features, or all there are, with their `radii`, computed once."""
        num = min(len(self.features) // size, most)
        subsets = self.features[: num * size].view(num, size, -1)
        known = self._radii.setdefault(size, [])
        known += [radii(some) for some in subsets[len(known) :]]
        return list(zip(subsets, known, strict=False))


def reference(store: Store, part: str, network: Network, num: int = 0) -> Reference:
    """Features of ``num`` images (0: all) of "train", "held_out" or "noise"; UserError for others, or below 2."""
    total = _NOISE_IMAGES if part == NOISE else store.count(part)
    num = min(num or total, total)
    if num < 2:
        raise UserError("", store.path, f"has {total} {part} images, too few to compare with", "use another split")
    identity = {"version": VERSION, "data": store.content_hash, "network": network.hash, "part": part, "num": num}
    path = store.path / "statistics" / f"{network.name}-{network.hash[:12]}-{part}-{num}.safetensors"
    text = json.dumps(identity, sort_keys=True)
    with suppress(*NOT_KEPT):
        found, tensors = kept(path, "statistics")
        features, mean, covariance = each = [tensors[name] for name in ("features", "mean", "covariance")]
        shapes = [(min(num, KEPT), len(mean)), (len(mean),), (len(mean), len(mean))]
        kinds = list(zip(shapes, (torch.float32, torch.float64, torch.float64), strict=True))
        if found == text and kinds == [(tuple(tensor.shape), tensor.dtype) for tensor in each]:
            return Reference(Moments(mean, covariance, num), features.double())
    images = noise_images(store, num) if part == NOISE else store.images(part)
    features = network.outputs(images, chosen(part, len(images), num)).features
    single, of_all = features[:KEPT].float(), moments(features)
    with suppress(OSError):  # a store that cannot be written to is measured anew each time
        keep(path, "statistics", text, {"features": single, "mean": of_all.mean, "covariance": of_all.covariance})
    return Reference(of_all, single.double())


def chosen(part: str, total: int, num: int) -> Tensor:
    """Which ``num`` of the ``total`` images of a part a reference is of, in the order of its features: int64 [num]."""
    return randomness.Order(0, f"reference {part}", 0, total)[:num]


def other_split(split: str) -> str:
    """The split that is not ``split``."""
    return SPLITS[1 - SPLITS.index(split)]


def noise_images(store: Store, num: int) -> Tensor:
    """Images of which every byte is equally likely, as the store has images: uint8 or float32 [num, C, H, W]."""
    size = math.prod(store.shape)
    numbers = randomness.bits(Key(0, "noise images", 0, torch.arange(num)), (size + 7) // 8)
    return store.scale.to_units(from_uint8(numbers.view(torch.uint8)[:, :size].reshape(num, *store.shape)))
