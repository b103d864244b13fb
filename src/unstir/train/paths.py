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
from unstir.diffusion.augmentation import unaugmented
from unstir.diffusion.denoiser import Conditioned, Denoiser
from unstir.diffusion.draw import steered
from unstir.diffusion.paths import follow
from unstir.randomness import Key
from unstir.runs.config import Config
from unstir.train.levers import Batches, Examples, hidden

PATHS, PERIOD, STEPS = 8, 56, (10, 18)
FROM_NOISE = 0.3  # of the pairs are at t = T besides those that chance takes there: one call begins only there


@dataclass(frozen=True, eq=False)
class _Followed:
    times: Tensor  # int64 [PATHS, n]; a path that has fewer points repeats its last one
    states: Tensor  # [PATHS, n, b, C, H, W]
    ends: Tensor  # [PATHS, b, C, H, W]
    conditions: Tensor | None  # [PATHS, b, ...]


class Paths:
    """The examples of any step. Paths have the conditions of training images of their own, out of ``batches``.

    In an example x_0 is the end of a path, eps its beginning and x_t the point on it. Where the teacher was trained on
    augmented images, what took the augmentation gets zeros.
    """

    def __init__(self, teacher: Denoiser, config: Config, shape: tuple[int, ...], batches: Batches) -> None:
        self._teacher, self._config, self._shape, self._batches = teacher, config, shape, batches
        self._period, self._followed = -1, dict[tuple[int, int], _Followed]()

    def __call__(self, step: int, slots: Tensor, part: slice) -> Examples:
        """The examples of a step for ``slots``, int64 [b], the places in the batch that ``part`` cuts out."""
        seed, period, place = self._config.seed, step // PERIOD, (part.start, len(slots))
        if period != self._period:  # before the next, so that there is memory for one alone
            self._period, self._followed = period, {}
        if place not in self._followed:
            self._followed[place] = self._follow(period, slots)
        followed = self._followed[place]
        path = randomness.integers(Key(seed, "path", step, slots), 0, PATHS - 1)
        latest = randomness.integers(Key(seed, "time", step, slots), 1, self._teacher.process.T)
        later, last = followed.times[path] > latest[:, None], followed.times.shape[1] - 1
        point = later.sum(1).clamp(max=last)  # of the first one by then, as the path goes
        point = point.masked_fill(randomness.coin(Key(seed, "from noise", step, slots), FROM_NOISE), 0)
        row = torch.arange(len(slots), device=slots.device)
        condition = None if followed.conditions is None else followed.conditions[path, row]
        x_t, t, end = followed.states[path, point, row], followed.times[path, point], followed.ends[path, row]
        zeros = unaugmented(len(slots), slots.device) if self._config.train.augment else None
        weight = torch.ones_like(x_t[:, 0, 0, 0])
        return Examples(end, t, followed.states[path, 0, row], weight, condition, augmentation=zeros, x_t=x_t)

    def _follow(self, period: int, slots: Tensor) -> _Followed:
        seed, process = self._config.seed, self._teacher.process
        most = min(STEPS[1], process.T)
        moments, states, ends, conditions = [], [], [], []
        for number in range(period * PATHS, (period + 1) * PATHS):
            chain, condition = self._chain(number), self._condition(number, slots)
            times = chain.visited(process.schedule)
            denoise = steered(Conditioned(self._teacher, condition), chain, process, indices=slots)
            noise = randomness.normal(Key(seed, "start of path", number, slots), self._shape)
            on_the_way, end = follow(denoise, process, noise, times)
            places = [min(place, len(on_the_way) - 1) for place in range(most)]
            moments.append(torch.tensor(times, device=slots.device)[places])
            states.append(on_the_way[places])
            ends.append(end)
            conditions += [] if condition is None else [condition]
        known = torch.stack(conditions) if conditions else None
        return _Followed(torch.stack(moments), torch.stack(states), torch.stack(ends), known)

    def _chain(self, number: int) -> Chain:
        key, T = Key(self._config.seed, "steps of path", number, torch.zeros(1).long()), self._teacher.process.T
        return Chain("unipc", steps=min(int(randomness.integers(key, *STEPS)), T))

    def _condition(self, number: int, slots: Tensor) -> Tensor | None:
        """The conditions of paths of this number, those of images of the data, or hidden as the teacher learned."""
        images, seed = self._batches.images, self._config.seed
        index = randomness.integers(Key(seed, "label of path", number, slots), 0, len(images) - 1)
        condition = self._batches.described(index.to(images.device), Key(seed, "flip of path", number, slots))
        if condition is None:
            return None
        return hidden(self._config, Key(seed, "label dropout of path", number, slots), condition)
