"""What a step learns from, as a function of the step alone, and the levers that change it.

`Trainer.examples` draws what algorithm 1 of Ho et al. 2020 draws: images, times and noise. The levers of the config
change these, one after the other; one that is off is not called, and a run with a teacher calls none. A lever may draw
t and eps anew with the same key. A new one is a function, a line of `levers`, a setting in `runs/sections.py` (named in
`_NO_BOUND` too where it changes x_t or t), and a case in `tests/train/variety.py` and `test_resume.py`.

`Batches` gives the images. The store's bytes are mapped or, on a GPU where they fit, resident; a batch is one gather,
one mirror and one scaling of tensors. Of a large store the images of the next step are asked for with each batch.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unstir import randomness
from unstir.data.store import Ahead, Store
from unstir.diffusion.augmentation import augmentation, transformed
from unstir.diffusion.loss import LossHistory, TimeTable, nearest_noise
from unstir.pixels import Scale, known
from unstir.randomness import LISTED, Key, Order
from unstir.runs import build
from unstir.runs.config import Config
from unstir.runs.run import Run

if TYPE_CHECKING:
    from unstir.runs.conditions import Conditions

STRETCH = 1 << 13  # images of an epoch's order that are listed at once, where it is not listed whole


class Batches:
    """Shuffled epochs of a store's training split; the last partial batch of each is dropped."""

    def __init__(
        self,
        store: Store,
        *,
        seed: int,
        batch_size: int,
        flip: bool,
        labels: bool,
        device: torch.device,
        conditions: "Conditions | None" = None,
    ) -> None:
        self.seed, self.batch_size, self.flip, self.device = seed, batch_size, flip, device
        images, self._scale = store.images("train"), store.scale
        self.steps_per_epoch = len(images) // batch_size
        self._steps_listed = self.steps_per_epoch if len(images) <= LISTED else max(1, STRETCH // batch_size)
        self.images = images.to(device) if _fits(images, device) else images
        self.labels = store.labels("train").to(self.images.device) if labels else None  # type: ignore[union-attr]
        self.store, self.conditions = store, conditions
        mapped = store.is_large and self.images is images
        self._ahead = Ahead(store.arrays()["train", "images"]) if mapped else None
        self._stretch = lru_cache(maxsize=2)(self._listed)  # of this step, and of the next

    def __call__(self, step: int, slots: Tensor, part: slice) -> tuple[Tensor, Tensor | None]:
        """A part of the global batch of ``step``: images float32 [b, C, H, W] in [-1, 1], and what describes each.

        That is the label, int64 [b], or the stored condition, float32 [b, K] or [b, C', H, W], or None. A missing value
        is NaN. ``slots``, int64 [b], the places in the global batch that ``part`` cuts out, fix who is mirrored.
        """
        index = self._index(step, part)
        if self._ahead is not None:
            self._ahead(self._index(step + 1, part).tolist())
        return self._mirrored(index, Key(self.seed, "flip", step, slots))

    def _mirrored(self, index: Tensor, key: Key) -> tuple[Tensor, Tensor | None]:
        """The images with these numbers, and what describes each, mirrored where ``key`` draws it."""
        x_0 = self._scale.to_model(self._moved(self.images[index]))
        condition = self.condition(index)
        if self.flip:
            mirrored = randomness.coin(key, 0.5)[:, None, None, None]
            x_0, condition = moved(lambda images: torch.where(mirrored, images.flip(-1), images), x_0, condition)
        return x_0, condition

    def condition(self, index: Tensor) -> Tensor | None:
        """The labels or stored conditions of the images with these numbers, int64 [b]."""
        if self.labels is not None:
            return self._moved(self.labels[index])
        if self.conditions is None:
            return None
        return self.conditions.stored(self.store, "train", index.cpu(), self.device)

    def described(self, index: Tensor, key: Key) -> Tensor | None:
        """What the network is told of the images with these numbers, int64 [b], mirrored where ``key`` draws it."""
        if self.conditions is None:
            return self.condition(index)
        x_0, condition = self._mirrored(index, key)
        return self.conditions.of_images(known(x_0, self._scale)[0], condition)

    def _moved(self, rows: Tensor) -> Tensor:
        """Rows on the training device, as bytes and from pinned memory where they have to travel."""
        if self.device.type == "cuda" and not rows.is_cuda:
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True)

    def _index(self, step: int, part: slice) -> Tensor:
        epoch, place = divmod(step, self.steps_per_epoch)
        stretch, place = divmod(place, self._steps_listed)
        return self._stretch(epoch, stretch)[place * self.batch_size :][: self.batch_size][part]

    def _listed(self, epoch: int, stretch: int) -> Tensor:
        """The images of so many steps, in the order of their epoch: int64."""
        size = self._steps_listed * self.batch_size
        order = Order(self.seed, "order", epoch, len(self.images))
        listed = order[stretch * size : (stretch + 1) * size]
        return self._moved(listed) if self.images.is_cuda else listed


def moved(move: Callable[[Tensor], Tensor], x_0: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Images [b, C, H, W], and what describes them where that is images too, moved as one."""
    if condition is None or condition.ndim != 4:
        return move(x_0), condition
    both = move(torch.cat((x_0, condition), 1))
    return both[:, : x_0.shape[1]], both[:, x_0.shape[1] :]


def _fits(images: Tensor, device: torch.device) -> bool:
    """Whether the split may live on the device: on CUDA up to a quarter of the free memory."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * images.element_size() < free / 4


class Examples(NamedTuple):
    """What a part of the batch learns from, on the training device.

    ``x_0`` are images [b, C, H, W] in [-1, 1], ``t`` times in 1..T, int64 [b], ``eps`` noise like x_0, standard normal,
    ``weight`` the factors of their losses, float32 [b], ``condition`` what the network is told of each: its class,
    int64 [b], a vector or an image (`UNet.forward`), or None. ``perturbation``, like x_0, is noise of x_t alone,
    ``augmentation`` what the network is told, float32 [b, 7]. ``x_t`` is a point on a path, x_0 its target (`paths`);
    None: x_0 with noise. ``present``, bool like x_0, says which values are known, None that all are; where one is not
    x_0 is 0.
    """

    x_0: Tensor
    t: Tensor
    eps: Tensor
    weight: Tensor
    condition: Tensor | None
    perturbation: Tensor | None = None
    augmentation: Tensor | None = None
    x_t: Tensor | None = None
    present: Tensor | None = None


Lever = Callable[[int, Tensor, Examples], Examples]
"""(step, slots, examples) -> examples; ``slots``, int64 [b], are the places in the global batch."""


def levers(run: Run, history: LossHistory | None, device: torch.device) -> list[Lever]:
    """The levers of a run, in their order; ``history`` has the losses seen at each time."""
    config, scale, conditions = run.config, run.data.scale, run.conditions
    table = build.times(config, device)
    registry = [
        partial(_augment, config) if config.train.augment else None,
        partial(_missing, scale) if scale.is_float else None,
        partial(_described, conditions) if conditions is not None else None,
        partial(_hidden, config) if config.train.condition_dropout else None,
        partial(_times_by_loss, config, history) if history is not None else None,
        partial(_times_by_density, config, table) if table is not None else None,
        partial(_nearest_noise, config) if config.loss.noise_choices > 1 else None,
        partial(_perturbation, config) if config.loss.input_perturbation else None,
    ]
    return [lever for lever in registry if lever is not None]


def _augment(config: Config, step: int, slots: Tensor, examples: Examples) -> Examples:
    numbers = augmentation(config.seed, step, slots, config.train.augment)
    x_0, condition = moved(lambda images: transformed(images, numbers), examples.x_0, examples.condition)
    return examples._replace(x_0=x_0, condition=condition, augmentation=numbers)


def _described(conditions: "Conditions", step: int, slots: Tensor, examples: Examples) -> Examples:
    return examples._replace(condition=conditions.of_images(examples.x_0, examples.condition))


def _hidden(config: Config, step: int, slots: Tensor, examples: Examples) -> Examples:
    assert examples.condition is not None
    key = Key(config.seed, "label dropout", step, slots)
    return examples._replace(condition=hidden(config, key, examples.condition))


def hidden(config: Config, key: Key, condition: Tensor) -> Tensor:
    """The conditions of a batch, hidden where chance says so: zeros, or for classes the label that says nothing."""
    chosen = randomness.coin(key, config.train.condition_dropout)
    if config.model.num_classes:
        return torch.where(chosen, config.model.num_classes, condition)
    return condition * ~chosen.view(-1, *[1] * (condition.ndim - 1))


def _missing(scale: Scale, step: int, slots: Tensor, examples: Examples) -> Examples:
    x_0, present = known(examples.x_0, scale)
    return examples._replace(x_0=x_0, present=present)


def _times_by_loss(config: Config, history: LossHistory, step: int, slots: Tensor, examples: Examples) -> Examples:
    t, weight = history.draw(Key(config.seed, "time", step, slots))
    return examples._replace(t=t, weight=weight)


def _times_by_density(config: Config, table: TimeTable, step: int, slots: Tensor, examples: Examples) -> Examples:
    return examples._replace(t=table.draw(Key(config.seed, "time", step, slots)))


def _nearest_noise(config: Config, step: int, slots: Tensor, examples: Examples) -> Examples:
    key = Key(config.seed, "noise", step, slots)
    return examples._replace(eps=nearest_noise(key, examples.x_0, config.loss.noise_choices))


def _perturbation(config: Config, step: int, slots: Tensor, examples: Examples) -> Examples:
    noise = randomness.normal(Key(config.seed, "perturbation", step, slots), tuple(examples.eps.shape[1:]))
    return examples._replace(perturbation=config.loss.input_perturbation * noise)
