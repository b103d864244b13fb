"""What a step learns from, and the levers that change it.

`Trainer.examples` draws what algorithm 1 of Ho et al. 2020 draws: images, times and noise. The levers of the config
change these, one after the other; one that is off is not called, and a run with a teacher calls none. A lever may draw
t and eps anew with the same key. A new one is a function, a line of `levers`, a setting in `runs/sections.py` (named in
`_NO_BOUND` too where it changes x_t or t), and a case in `tests/train/variety.py` and `test_resume.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from unstir import randomness
from unstir.diffusion.augmentation import augmented
from unstir.diffusion.loss import LossHistory, nearest_noise
from unstir.diffusion.times import TimeTable
from unstir.randomness import Key
from unstir.runs import build
from unstir.runs.config import Config


class Examples(NamedTuple):
    """What a part of the batch learns from, on the training device.

    ``x_0`` are images [b, C, H, W] in [-1, 1], ``t`` times in 1..T, int64 [b], ``eps`` noise like x_0, standard normal,
    ``weight`` the factors of their losses, float32 [b], ``label`` int64 [b], or None without classes. ``perturbation``,
    like x_0, is noise of x_t alone, ``augmentation`` what the network is told, float32 [b, 7]. ``x_t`` is a point on a
    path from eps to x_0 (`paths`); None: x_0 with noise.
    """

    x_0: Tensor
    t: Tensor
    eps: Tensor
    weight: Tensor
    label: Tensor | None
    perturbation: Tensor | None = None
    augmentation: Tensor | None = None
    x_t: Tensor | None = None


Lever = Callable[[int, Tensor, Examples], Examples]
"""(step, slots, examples) -> examples; ``slots``, int64 [b], are the places in the global batch."""


def levers(config: Config, history: LossHistory | None, device: torch.device) -> list[Lever]:
    """The levers of a config, in the order in which they act; ``history`` has the losses seen at each time."""
    table = build.times(config, device)
    registry = [
        partial(_label_dropout, config) if config.train.label_dropout else None,
        partial(_augment, config) if config.train.augment else None,
        partial(_times_by_loss, config, history) if history is not None else None,
        partial(_times_by_density, config, table) if table is not None else None,
        partial(_nearest_noise, config) if config.loss.noise_choices > 1 else None,
        partial(_perturbation, config) if config.loss.input_perturbation else None,
    ]
    return [lever for lever in registry if lever is not None]


def _label_dropout(config: Config, step: int, slots: Tensor, examples: Examples) -> Examples:
    assert examples.label is not None
    hidden = randomness.coin(Key(config.seed, "label dropout", step, slots), config.train.label_dropout)
    return examples._replace(label=torch.where(hidden, config.model.num_classes, examples.label))


def _augment(config: Config, step: int, slots: Tensor, examples: Examples) -> Examples:
    x_0, numbers = augmented(examples.x_0, config.seed, step, slots, config.train.augment)
    return examples._replace(x_0=x_0, augmentation=numbers)


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
