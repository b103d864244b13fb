"""A small classifier of a store's own classes, trained in a minute without a download; its features measure images.

Distances between sets of images are taken between features, because pixels say little about what is seen. Published
figures use an Inception network trained on ImageNet; here the features are those of a network trained on the very data
that a run models, so they know its digits or animals, need no file from elsewhere and work at any size of image. In
return a figure compares only with figures of the same weights: `Classifier.hash` names them.

A convolution at full size, then one of stride 2 for every halving until 4 to 7 pixels are left, then one more; each
but the first is followed by GroupNorm, all by SiLU. The first goes without a norm so that brightness and contrast
remain visible. Features are the means over the last map.
"""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unstir import randomness
from unstir.data import Store
from unstir.errors import UserError
from unstir.nn.blocks import GroupNorm
from unstir.randomness import Key
from unstir.runs.checkpoint import content_hash
from unstir.runs.files import replacing
from unstir.runs.kinds import is_number

VERSION = 1
"""Grows whenever the same store would give other weights; a cached classifier of another version is trained anew."""

FILE = "classifier.safetensors"
FEATURES = 64
IMAGES_SEEN = 64_000  # some 6 s of one core at 8x8, some 25 s at 32x32
FULL_SIDE = 64  # images larger than this are seen less often, so that their pixels together stay the same

_GROUPS, _NARROWEST, _NORM_EPS = 4, 8, 1e-5
_BATCH, _RATE, _WARMUP = 64, 6e-3, 0.1

Progress = Callable[[int, int], None]
"""progress(done, total), in images."""


class Network(nn.Module):
    """Images float32 [B, C, H, W] in [-1, 1] to class logits [B, K]; ``shape`` is (C, H, W), 8 pixels a side or more.

    Smaller images work too, without any halving.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, *sides = shape
        num_halvings, side = 0, min(sides)
        while side >= 8:
            num_halvings, side = num_halvings + 1, (side + 1) // 2
        # channels double as the area falls to a quarter, up to FEATURES: each halving costs about the same
        widths = [max(FEATURES >> (num_halvings - i), _NARROWEST) for i in range(1, num_halvings + 1)]
        first = widths[0] if num_halvings > 1 else FEATURES // 2
        layers: list[nn.Module] = [nn.Conv2d(channels, first, 3, padding=1), nn.SiLU()]
        before = first
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
class Classifier:
    """A trained network, on the CPU in float32, so that its figures do not depend on the accelerator at hand.

    ``shape`` is the (C, H, W) it judges; ``accuracy`` the fraction of held-out images it classifies rightly, None
    where nothing was held out; ``data`` the content hash of the store that it learned from.
    """

    net: Network
    shape: tuple[int, int, int]
    accuracy: float | None
    data: str

    @property
    def name(self) -> str:
        """What its features are called."""
        return "classifier"

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the weights: distances compare where it is the same."""
        return content_hash(self.net.state_dict())

    def features(self, images: Tensor, batch_size: int = _BATCH) -> Tensor:
        """The features of ``images``, uint8 [N, C, H, W] in 0..255 as a PNG holds them: float64 [N, FEATURES].

        Raises UserError for images of another shape or type than the classifier judges.
        """
        return self._judged(self.net.features, images, batch_size)

    def probabilities(self, images: Tensor, batch_size: int = _BATCH) -> Tensor:
        """The probability of each class for ``images``, uint8 [N, C, H, W]: float64 [N, K], rows that sum to 1.

        Raises UserError as `features` does.
        """
        return self._judged(self.net, images, batch_size).softmax(1)

    @torch.inference_mode()
    def _judged(self, function: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.shape:
            given = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise UserError(f"images are {given}; this classifier judges uint8 [N, {', '.join(map(str, self.shape))}]")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        rows = [function(_scaled(batch)).double() for batch in torch.split(images, batch_size)]
        return torch.cat(rows)


def classifier_for(store: Store, progress: Progress | None = None) -> Classifier:
    """The classifier of a store, trained with seed 0 at the first call and kept in its folder as ``FILE``.

    A cached file that is damaged, or of other data or another version, is trained anew. Raises UserError as
    `train_classifier` does.
    """
    _check(store)
    path = store.path / FILE
    if (cached := _load(path, store)) is not None:
        return cached
    made = train_classifier(store, progress=progress)
    with suppress(UserError):  # a store that cannot be written to is judged all the same, at a training's cost a call
        _save(path, made)
    return made


def train_classifier(
    store: Store, *, seed: int = 0, mirror: bool = False, progress: Progress | None = None
) -> Classifier:
    """Train on the store's training images and labels with Adam and cross-entropy; IMAGES_SEEN images at most.

    Each image is shifted by up to an eighth of the side, its rim reflected into the gap, and with ``mirror`` turned
    left to right half of the time (never for writing). The result is a function of store, seed and mirror for the
    same torch build, machine and number of threads. Raises UserError where there are not two classes to tell apart
    or no training images.
    """
    _check(store)
    images, labels = store.images("train"), store.labels("train")
    assert labels is not None
    net = _network(store, seed)
    _, height, width = store.shape
    seen = min(IMAGES_SEEN, IMAGES_SEEN * FULL_SIDE**2 // (height * width))
    steps = max(seen // _BATCH, 1)
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)
    for step, index in enumerate(_order(seed, len(images), steps)):
        optimizer.param_groups[0]["lr"] = _RATE * _rate(step, steps)
        x = _scaled(_moved(images[index], seed, step, mirror))
        loss = nn.functional.cross_entropy(net(x), labels[index])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if progress is not None:
            progress((step + 1) * _BATCH, steps * _BATCH)
    net.eval().requires_grad_(False)
    trained = Classifier(net, store.shape, None, store.content_hash)
    return Classifier(net, store.shape, _accuracy(trained, store), store.content_hash)


def _scaled(images: Tensor) -> Tensor:
    """Bytes 0..255 to float32 in [-1, 1]: the one place that says how the network sees an image."""
    return images.float().div_(127.5).sub_(1)


def _moved(images: Tensor, seed: int, step: int, mirror: bool) -> Tensor:
    """A batch uint8 [B, C, H, W], each image shifted, and mirrored where asked, as (seed, step, place) decides."""
    B, C, H, W = images.shape
    slots = torch.arange(B)
    rows, columns = (
        _reflected(torch.arange(n) + randomness.integers(Key(seed, name, step, slots), -(n // 8), n // 8)[:, None], n)
        for name, n in (("classifier rows", H), ("classifier columns", W))
    )
    if mirror:
        turned = randomness.coin(Key(seed, "classifier mirror", step, slots), 0.5)
        columns = torch.where(turned[:, None], columns.flip(1), columns)
    batch, channels = slots[:, None, None, None], torch.arange(C)[None, :, None, None]
    return images[batch, channels, rows[:, None, :, None], columns[:, None, None, :]]


def _reflected(index: Tensor, n: int) -> Tensor:
    """Indices from -n + 1 to 2 n - 2 folded into 0..n-1 about the first and the last: -1 is 1, n is n - 2."""
    return (n - 1) - ((n - 1) - index.abs()).abs()


def _order(seed: int, num: int, steps: int) -> tuple[Tensor, ...]:
    """The images of each step, int64 [_BATCH] a step: epochs in random order, one after another."""
    epochs = range(math.ceil(steps * _BATCH / num))
    order = torch.cat([randomness.permutation(seed, "classifier order", epoch, num) for epoch in epochs])
    return torch.split(order[: steps * _BATCH], _BATCH)


def _rate(step: int, steps: int) -> float:
    """The learning rate over its highest: a linear rise over the first tenth, under a cosine that ends at 0."""
    return min((step + 1) / (_WARMUP * steps), 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _network(store: Store, seed: int) -> Network:
    """The network with its initial weights, a function of the seed; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(randomness.derive_seed(seed, "classifier"))
        return Network(store.shape, len(store.classes))


def _accuracy(classifier: Classifier, store: Store) -> float | None:
    labels = store.labels("held_out")
    if labels is None or len(labels) == 0:
        return None
    right = classifier.probabilities(store.images("held_out")).argmax(1) == labels
    return right.double().mean().item()


def _check(store: Store) -> None:
    if not store.labelled:
        raise UserError(
            f"{store.path} has no class labels, which this distance needs to learn its features from; "
            "pack images sorted into a folder for each class"
        )
    if len(store.classes) < 2:
        raise UserError(f"{store.path} has one class alone and a classifier needs two; pack a folder for each class")
    if store.count("train") == 0:
        raise UserError(f"{store.path} has no training images to learn from; pack it with a smaller held-out part")


def _save(path: Path, classifier: Classifier) -> None:
    tensors = classifier.net.state_dict()
    meta = {"version": VERSION, "data": classifier.data, "accuracy": classifier.accuracy}
    text = json.dumps(meta, sort_keys=True)
    with replacing(path) as partial:
        save_file(tensors, partial, {"unstir_classifier": text, "sha256": content_hash(tensors, text)})


def _load(path: Path, store: Store) -> Classifier | None:
    """The cached classifier; None where there is none for this store, whole and of this version."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        text = metadata.get("unstir_classifier", "")
        if metadata.get("sha256") != content_hash(tensors, text):
            return None
        meta = json.loads(text)
        if (meta["version"], meta["data"]) != (VERSION, store.content_hash):
            return None
        if meta["accuracy"] is not None and not is_number(meta["accuracy"]):
            return None
        net = _network(store, seed=0)
        net.load_state_dict(tensors)
        net.eval().requires_grad_(False)
        return Classifier(net, store.shape, meta["accuracy"], store.content_hash)
    except (OSError, SafetensorError, ValueError, OverflowError, KeyError, TypeError, RuntimeError, AttributeError):
        return None  # whatever the file is, it is not what `_save` wrote
