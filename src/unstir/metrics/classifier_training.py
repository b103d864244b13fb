"""How the classifier of a store learns: Adam on cross-entropy, over images each shifted a little."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstir import randomness
from unstir.pixels import from_uint8
from unstir.progress import counting
from unstir.randomness import Key

BATCH = 64
_RATE, _WARMUP = 6e-3, 0.1


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned: ``images`` uint8 [N, C, H, W] with ``labels`` int64 [N], in ``steps`` steps of `BATCH` images.

    The order and the shifts of the images are a function of ``seed``.
    """

    images: Tensor
    labels: Tensor
    steps: int
    seed: int

    @property
    def order(self) -> Sequence[Tensor]:
        """The images of each step, int64 [BATCH], in epochs of random order."""
        seen, num = self.steps * BATCH, len(self.images)
        epochs = range(math.ceil(seen / num))
        order = torch.cat([randomness.Order(self.seed, "classifier order", epoch, num)[:seen] for epoch in epochs])
        return torch.split(order[:seen], BATCH)


def learn(net: nn.Module, lesson: Lesson) -> None:
    """Train ``net`` in place."""
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)
    with counting("training the classifier", "images") as count:
        for step, index in enumerate(lesson.order):
            rise, fall = (step + 1) / (_WARMUP * lesson.steps), 1 + math.cos(math.pi * step / lesson.steps)
            optimizer.param_groups[0]["lr"] = _RATE * (min(rise, 1.0) * 0.5 * fall)  # linear warm-up under a cosine
            x = from_uint8(moved(lesson.images[index], lesson.seed, step))
            loss = nn.functional.cross_entropy(net(x), lesson.labels[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            count((step + 1) * BATCH, lesson.steps * BATCH)


def moved(images: Tensor, seed: int, step: int) -> Tensor:
    """A batch uint8 [B, C, H, W], each image shifted by up to an eighth of its side, its rim reflected into the gap.

    By how much is a function of (seed, step, place in the batch).
    """
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
