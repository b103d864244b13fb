"""The training batch of any step, as a function of the step alone.

The store's bytes are mapped or, on a GPU where they fit, resident; a batch is one gather, one mirror and one scaling of
tensors. No image is decoded and nothing waits for the device.
"""

import torch
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.pixels import from_uint8
from unstir.randomness import Key


class Batches:
    """Shuffled epochs of a store's training split; the last partial batch of each is dropped."""

    def __init__(
        self, store: Store, *, seed: int, batch_size: int, flip: bool, labels: bool, device: torch.device
    ) -> None:
        self.seed, self.batch_size, self.flip, self.device = seed, batch_size, flip, device
        images = store.images("train")
        self.steps_per_epoch = len(images) // batch_size
        self.images = images.to(device) if _fits(images, device) else images
        self.labels = store.labels("train").to(self.images.device) if labels else None  # type: ignore[union-attr]
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    def __call__(self, step: int, slots: Tensor, part: slice) -> tuple[Tensor, Tensor | None]:
        """A part of the global batch of ``step``: images float32 [b, C, H, W] in [-1, 1] and labels int64 [b] or None.

        ``slots`` is int64 [b], the places in the global batch that ``part`` cuts out; they fix who is mirrored.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        index = self._epoch_order(epoch)[place * self.batch_size :][: self.batch_size][part]
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

    def _epoch_order(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            order = randomness.permutation(self.seed, "order", epoch, len(self.images))
            self._order = (epoch, order.to(self.images.device))
        return self._order[1]


def _fits(images: Tensor, device: torch.device) -> bool:
    """Whether the whole split may live on the device: on CUDA up to a quarter of the free memory."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() < free / 4
