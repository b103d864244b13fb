"""A small classifier of a store's own classes, trained in a minute without a download; its features measure images.

A convolution at full size, then one of stride 2 for every halving until 4 to 7 pixels are left, then one more; each
but the first is followed by GroupNorm, all by SiLU. The first goes without a norm so that brightness and contrast
remain visible. Features are the means over the last map.
"""

import dataclasses
import json
import logging
import math
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from unstir import randomness
from unstir.data import Store
from unstir.metrics.features import BATCH, NOT_KEPT, Components, Network, Outputs, Trust, check_images, keep, kept
from unstir.nn.blocks import GroupNorm
from unstir.pixels import PIXELS, from_uint8
from unstir.progress import counting
from unstir.randomness import Key
from unstir.runs.checkpoint import content_hash

logger = logging.getLogger(__name__)

VERSION = 2  # grows whenever the same store would give other weights
FILE = "classifier.safetensors"  # where the classifier is kept in the store's folder
FEATURES = 64
EPOCHS, LEAST_SEEN, MOST_SEEN = 45, 16_000, 64_000  # docs/evaluation.md has the accuracy
_FULL_SIDE = 64  # larger images are seen less often, so that their pixels together stay the same
_GROUPS, _NARROWEST, _NORM_EPS = 4, 8, 1e-5
_RATE, _WARMUP = 6e-3, 0.1


class ConvNet(nn.Module):
    """Images float32 [B, C, H, W] in [-1, 1] to class logits [B, K]; ``shape`` is (C, H, W), of any size."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, *sides = shape
        num_halvings, side = 0, min(sides)
        while side >= 8:
            num_halvings, side = num_halvings + 1, (side + 1) // 2
        # channels double as the area falls to a quarter, up to FEATURES: each halving costs about the same
        widths = [max(FEATURES >> (num_halvings - i), _NARROWEST) for i in range(1, num_halvings + 1)]
        before = widths[0] if num_halvings > 1 else FEATURES // 2
        layers: list[nn.Module] = [nn.Conv2d(channels, before, 3, padding=1), nn.SiLU()]
        for width, stride in [*((w, 2) for w in widths), (FEATURES, 1)]:
            conv = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
            layers += [conv, GroupNorm(_GROUPS, width, _NORM_EPS), nn.SiLU()]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """x float32 [B, C, H, W] in [-1, 1] to features [B, FEATURES]."""
        maps: Tensor = self.body(x)
        return maps.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, C, H, W] in [-1, 1] to logits [B, K]."""
        logits: Tensor = self.head(self.features(x))
        return logits


@dataclass(frozen=True, eq=False)
class Classifier(Network):
    """A trained network, on the CPU in float32, so that its figures depend on no accelerator.

    ``shape`` is the (C, H, W) it takes, ``seen`` how many images it saw (`budget`), ``trust`` how it did on held-out
    images. ``hash`` is over weights, version and budget.
    """

    net: ConvNet
    shape: tuple[int, int, int]
    seen: int
    trust: Trust
    hash: str = field(init=False)
    name = "classifier"

    def __post_init__(self) -> None:
        self.net.eval().requires_grad_(False)
        digest = content_hash(self.net.state_dict(), f"classifier {VERSION}, {self.seen} images")
        object.__setattr__(self, "hash", digest)

    def classes_of(self, images: Tensor) -> Tensor:
        """The likeliest class of ``images``, uint8 [N, C, H, W]: int64 [N]. Raises UserError as `outputs`."""
        logits = self.outputs(images).logits
        assert logits is not None
        return logits.argmax(1)

    def _batch(self, images: Tensor) -> Outputs:
        check_images(images, self.shape, PIXELS, self.name)
        features = self.net.features(from_uint8(images))
        return Outputs(features, self.net.head(features))


def classifier_for(store: Store) -> Classifier:
    """The classifier of a store, trained with seed 0 and kept in its folder. Raises UserError as `Store.verify`."""
    store.verify()
    if (cached := _cached(store)) is not None:
        return cached
    logger.info(f"training a classifier on {store.path}, where it is kept")
    new = train_classifier(store)
    meta = {"version": VERSION, "data": store.content_hash, "seen": new.seen, "trust": dataclasses.asdict(new.trust)}
    with suppress(OSError):  # a store that cannot be written to is good all the same, at a training's cost
        keep(store.path / FILE, "classifier", json.dumps(meta, sort_keys=True), new.net.state_dict())
    return new


def _cached(store: Store) -> Classifier | None:
    """The classifier as `classifier_for` kept it, for this store and whole, of this version and budget; else None."""
    with suppress(*NOT_KEPT):
        text, tensors = kept(store.path / FILE, "classifier")
        meta = json.loads(text)
        if (meta["version"], meta["data"], meta["seen"]) == (VERSION, store.content_hash, budget(store)):
            net = _network(store, seed=0)
            net.load_state_dict(tensors)
            return Classifier(net, store.shape, meta["seen"], Trust(**meta["trust"]))
    return None


def train_classifier(store: Store, *, seed: int = 0) -> Classifier:
    """Train on `budget` of the store's training images with their labels, by Adam and cross-entropy.

    Each image is shifted (`moved`). The result is a function of store and seed for the same torch build, machine and
    threads. `networks_for` says which stores have what it takes.
    """
    net = _network(store, seed)
    images, labels = store.images("train"), store.labels("train")
    assert labels is not None
    _learn(net, images, labels, budget(store) // BATCH, seed)
    untested = Classifier(net, store.shape, budget(store), Trust(0, 0, 0))
    if (labels := store.labels("held_out")) is None or len(labels) == 0:
        return untested
    right = untested.classes_of(store.images("held_out")) == labels
    return replace(untested, trust=Trust(int(right.sum()), len(labels), int(labels.bincount().max())))


def networks_for(store: Store) -> list[Network]:
    """What needs no download: principal components of values in units, else a classifier of two classes or more."""
    if store.scale.is_float:
        return [Components.of(store)]
    return [classifier_for(store)] if len(store.classes) > 1 and store.count("train") else []


def budget(store: Store) -> int:
    """How many images it learns from, in whole batches: `EPOCHS` times all, within bounds; fewer of large ones."""
    _, height, width = store.shape
    seen = min(max(EPOCHS * store.count("train"), LEAST_SEEN), MOST_SEEN)
    return max(min(seen, seen * _FULL_SIDE**2 // (height * width)) // BATCH, 1) * BATCH


@torch.enable_grad()
def _learn(net: ConvNet, images: Tensor, labels: Tensor, steps: int, seed: int) -> None:
    """Train ``net`` in place on ``images``, uint8 [N, C, H, W], in epochs of an order that ``seed`` decides."""
    seen = steps * BATCH
    epochs = range(math.ceil(seen / len(images)))
    order = torch.cat([randomness.Order(seed, "classifier order", epoch, len(images))[:seen] for epoch in epochs])
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)
    with counting("training the classifier", "images") as count:
        for step, index in enumerate(torch.split(order[:seen], BATCH)):
            rise, fall = (step + 1) / (_WARMUP * steps), 1 + math.cos(math.pi * step / steps)
            optimizer.param_groups[0]["lr"] = _RATE * (min(rise, 1.0) * 0.5 * fall)  # linear warm-up under a cosine
            x = from_uint8(moved(images[index], seed, step))
            loss = nn.functional.cross_entropy(net(x), labels[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            count((step + 1) * BATCH, seen)


def moved(images: Tensor, seed: int, step: int) -> Tensor:
    """A batch uint8 [B, C, H, W], each image shifted by up to an eighth of its side, its rim reflected into the gap."""
    B, C, H, W = images.shape
    slots = torch.arange(B)
    rows, columns = (
        _reflected(torch.arange(n) + randomness.integers(Key(seed, name, step, slots), -(n // 8), n // 8)[:, None], n)
        for name, n in (("classifier rows", H), ("classifier columns", W))
    )
    batch, channels = slots[:, None, None, None], torch.arange(C)[None, :, None, None]
    return images[batch, channels, rows[:, None, :, None], columns[:, None, None, :]]


def _reflected(index: Tensor, n: int) -> Tensor:
    """Indices from -n + 1 to 2 n - 2 folded into 0..n-1 about the first and the last: -1 is 1, n is n - 2."""
    return (n - 1) - ((n - 1) - index.abs()).abs()


def _network(store: Store, seed: int) -> ConvNet:
    """The network with its initial weights, a function of the seed; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(randomness.derive_seed(seed, "classifier"))
        return ConvNet(store.shape, len(store.classes))
