"""The pairs that a distilled run learns from: points on paths of its teacher, and the images where these end.

The teacher is the network with the weights that the run began with. Each slot of the batch has `PATHS` paths, which
last for `PERIOD` steps, about as many as they have points: a step takes one call of the teacher more. Which point
a slot learns from at a step is drawn: the first at or below a uniform t, or x_T. All is a function of (seed, step,
slot).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser, Labelled
from unstir.diffusion.draw import steered
from unstir.diffusion.paths import follow, visits
from unstir.randomness import Key
from unstir.runs.config import Config

PATHS, VISITED = 4, 16
PERIOD = PATHS * VISITED
FROM_NOISE = 0.2  # of the pairs are at t = T besides those that chance takes there: one call begins from nowhere else


@dataclass(frozen=True, eq=False)
class Pairs:
    """What a part of the batch learns from: ``x_t`` at ``t`` and the ``end`` of its path, of images with ``label``."""

    x_t: Tensor
    t: Tensor
    end: Tensor
    label: Tensor | None


@dataclass(frozen=True, eq=False)
class _Followed:
    period: int
    times: Tensor  # int64 [n]
    states: Tensor  # [PATHS, n, b, C, H, W]
    ends: Tensor  # [PATHS, b, C, H, W]
    labels: Tensor | None  # int64 [PATHS, b]


class Paths:
    """The pairs of any step. ``labels`` int64 [N] are those of the training images, of which paths have their own."""

    def __init__(self, teacher: Denoiser, config: Config, shape: tuple[int, ...], labels: Tensor | None) -> None:
        self._teacher, self._config, self._shape, self._labels = teacher, config, shape, labels
        self._followed: dict[int, _Followed] = {}

    def __call__(self, step: int, slots: Tensor, part: slice) -> Pairs:
        """The pairs of a step for ``slots``, int64 [b], the places in the batch that ``part`` cuts out."""
        seed, found = self._config.seed, self._followed.get(part.start)
        if found is None or found.period != step // PERIOD or len(slots) != found.ends.shape[1]:
            self._followed.pop(part.start, None)  # before the next, so that there is memory for one alone
            found = self._followed[part.start] = self._follow(step // PERIOD, slots)
        path = randomness.integers(Key(seed, "path", step, slots), 0, PATHS - 1)
        latest = randomness.integers(Key(seed, "time", step, slots), 1, self._teacher.process.T)
        place = (found.times > latest[:, None]).sum(1).clamp(max=len(found.times) - 1)  # of the last one by then
        place = place.masked_fill(randomness.coin(Key(seed, "from noise", step, slots), FROM_NOISE), 0)
        row = torch.arange(len(slots), device=slots.device)
        label = None if found.labels is None else found.labels[path, row]
        return Pairs(found.states[path, place, row], found.times[place], found.ends[path, row], label)

    def _follow(self, period: int, slots: Tensor) -> _Followed:
        seed, process = self._config.seed, self._teacher.process
        times = visits(process.T, VISITED, Key(seed, "times of paths", period, torch.zeros(1, dtype=torch.int64)))
        states, ends, labels = [], [], []
        for number in range(period * PATHS, (period + 1) * PATHS):
            label = self._label(number, slots)
            denoise = steered(Labelled(self._teacher, label), Chain("unipc"), process, indices=slots)
            noise = randomness.normal(Key(seed, "start of path", number, slots), self._shape)
            on_the_way, end = follow(denoise, process, noise, times)
            states.append(on_the_way)
            ends.append(end)
            labels += [] if label is None else [label]
        moments = torch.tensor(times[:-1], device=slots.device)
        known = torch.stack(labels) if labels else None
        return _Followed(period, moments, torch.stack(states), torch.stack(ends), known)

    def _label(self, number: int, slots: Tensor) -> Tensor | None:
        """The classes of paths of this number, as often as in the data, or hidden as in the teacher's training."""
        if self._labels is None:
            return None
        seed, cfg = self._config.seed, self._config
        index = randomness.integers(Key(seed, "label of path", number, slots), 0, len(self._labels) - 1)
        label = self._labels[index.to(self._labels.device)].to(slots.device)
        hidden = randomness.coin(Key(seed, "label dropout of path", number, slots), cfg.train.label_dropout)
        return torch.where(hidden, cfg.model.num_classes, label)
