"""The training batch of any step, as a function of the step alone.

The store's bytes are mapped or, on a GPU where they fit, resident; a batch is one gather, one mirror and one scaling of
tensors. No image is decoded and nothing waits for the device. Nor for the disk: of a large store the images of the next
step are asked for with each batch, since it is known which they are.
"""

from functools import lru_cache

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Ahead, Store
from unstir.pixels import from_uint8
from unstir.randomness import LISTED, Key, Order
from unstir.runs.run import Run

STRETCH = 1 << 13  # images of an epoch's order that are listed at once, where it is too long to be listed whole


class Batches:
    """Shuffled epochs of a store's training split; the last partial batch of each is dropped."""

    def __init__(
        self, store: Store, *, seed: int, batch_size: int, flip: bool, labels: bool, device: torch.device
    ) -> None:
        self.seed, self.batch_size, self.flip, self.device = seed, batch_size, flip, device
        images = store.images("train")
        self.steps_per_epoch = len(images) // batch_size
        self._steps_listed = self.steps_per_epoch if len(images) <= LISTED else max(1, STRETCH // batch_size)
        self.images = images.to(device) if _fits(images, device) else images
        self.labels = store.labels("train").to(self.images.device) if labels else None  # type: ignore[union-attr]
        mapped = store.is_large and self.images is images
        self._ahead = Ahead(store.arrays()["train", "images"]) if mapped else None
        self._stretch = lru_cache(maxsize=2)(self._listed)  # of this step, and of the next

    @classmethod
    def of(cls, run: Run, store: Store, device: torch.device) -> "Batches":
        """The batches that a run learns from."""
        config = run.config
        labels, size = config.model.num_classes > 0, config.train.batch_size
        return cls(store, seed=config.seed, batch_size=size, flip=config.data.flip, labels=labels, device=device)

    def __call__(self, step: int, slots: Tensor, part: slice) -> tuple[Tensor, Tensor | None]:
        """A part of the global batch of ``step``: images float32 [b, C, H, W] in [-1, 1] and labels int64 [b] or None.

        ``slots`` is int64 [b], the places in the global batch that ``part`` cuts out; they fix who is mirrored.
        """
        index = self._index(step, part)
        if self._ahead is not None:
            self._ahead(self._index(step + 1, part).tolist())
        x_0 = from_uint8(self._moved(self.images[index]))
        if self.flip:
            mirrored = randomness.coin(Key(self.seed, "flip", step, slots), 0.5)
            x_0 = torch.where(mirrored[:, None, None, None], x_0.flip(-1), x_0)
        label = None if self.labels is None else self._moved(self.labels[index])
        return x_0, label

    def _moved(self, rows: Tensor) -> Tensor:
        """Rows on the training device, as bytes and from pinned memory where they have to travel."""
        if self.device.type == "cuda" and not rows.is_cuda:
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True)

    def _index(self, step: int, part: slice) -> Tensor:
        """Which images a part of the batch of ``step`` has."""
        epoch, place = divmod(step, self.steps_per_epoch)
        stretch, place = divmod(place, self._steps_listed)
        return self._stretch(epoch, stretch)[place * self.batch_size :][: self.batch_size][part]

    def _listed(self, epoch: int, stretch: int) -> Tensor:
        """The images of so many steps, in the order of their epoch: int64."""
        size = self._steps_listed * self.batch_size
        order = Order(self.seed, "order", epoch, len(self.images))
        listed = order[stretch * size : (stretch + 1) * size]
        return self._moved(listed) if self.images.is_cuda else listed


def _fits(images: Tensor, device: torch.device) -> bool:
    """Whether the whole split may live on the device: on CUDA up to a quarter of the free memory."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() < free / 4
