"""The pairs that a run learns from which has a teacher: points on paths of its teacher, and the images where these end.

The teacher is the network with the weights that the run began with. Each slot of the batch has `PATHS` paths at a time,
which last for `PERIOD` steps; with `STEPS` of its solver they take two calls of the teacher for each step of training.
These visit equally spaced times, as many as are drawn for a path, so that other paths visit others. Which point a slot
learns from at a step is drawn: the first at or below a uniform t, or x_T. All is a function of (seed, step, slot).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser, Labelled
from unstir.diffusion.draw import steered
from unstir.diffusion.paths import follow
from unstir.randomness import Key
from unstir.runs.config import Config

PATHS, PERIOD, STEPS = 8, 56, (10, 18)
FROM_NOISE = 0.3  # of the pairs are at t = T besides those that chance takes there: one call begins from nowhere else


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
    times: Tensor  # int64 [PATHS, n]; a path that has fewer points repeats its last one
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
        if found is not None and len(slots) != found.ends.shape[1]:  # the batch is cut into other parts
            self._followed.clear()
            found = None
        if found is None or found.period != step // PERIOD:
            self._followed.pop(part.start, None)  # before the next, so that there is memory for one alone
            found = self._followed[part.start] = self._follow(step // PERIOD, slots)
        path = randomness.integers(Key(seed, "path", step, slots), 0, PATHS - 1)
        latest = randomness.integers(Key(seed, "time", step, slots), 1, self._teacher.process.T)
        later, last = found.times[path] > latest[:, None], found.times.shape[1] - 1
        place = later.sum(1).clamp(max=last)  # of the first one by then, as the path goes
        place = place.masked_fill(randomness.coin(Key(seed, "from noise", step, slots), FROM_NOISE), 0)
        row = torch.arange(len(slots), device=slots.device)
        label = None if found.labels is None else found.labels[path, row]
        return Pairs(found.states[path, place, row], found.times[path, place], found.ends[path, row], label)

    def _follow(self, period: int, slots: Tensor) -> _Followed:
        seed, process = self._config.seed, self._teacher.process
        most = min(STEPS[1], process.T)
        moments, states, ends, labels = [], [], [], []
        for number in range(period * PATHS, (period + 1) * PATHS):
            chain, label = self._chain(number), self._label(number, slots)
            times = chain.times(process.schedule)
            denoise = steered(Labelled(self._teacher, label), chain, process, indices=slots)
            noise = randomness.normal(Key(seed, "start of path", number, slots), self._shape)
            on_the_way, end = follow(denoise, process, noise, times)
            places = [min(place, len(on_the_way) - 1) for place in range(most)]
            moments.append(torch.tensor(times, device=slots.device)[places])
            states.append(on_the_way[places])
            ends.append(end)
            labels += [] if label is None else [label]
        known = torch.stack(labels) if labels else None
        return _Followed(period, torch.stack(moments), torch.stack(states), torch.stack(ends), known)

    def _chain(self, number: int) -> Chain:
        """The solver of paths of this number, of as many steps as are drawn, at most T."""
        key, T = Key(self._config.seed, "steps of path", number, torch.zeros(1).long()), self._teacher.process.T
        return Chain("unipc", steps=min(int(randomness.integers(key, *STEPS)), T))

    def _label(self, number: int, slots: Tensor) -> Tensor | None:
        """The classes of paths of this number, as often as in the data, or hidden as in the teacher's training."""
        if self._labels is None:
            return None
        seed, cfg = self._config.seed, self._config
        index = randomness.integers(Key(seed, "label of path", number, slots), 0, len(self._labels) - 1)
        label = self._labels[index.to(self._labels.device)].to(slots.device)
        hidden = randomness.coin(Key(seed, "label dropout of path", number, slots), cfg.train.label_dropout)
        return torch.where(hidden, cfg.model.num_classes, label)
