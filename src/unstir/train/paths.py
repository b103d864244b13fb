"""The pairs that a run learns from which has a teacher: points on paths of its teacher, and how each is left.

The teacher is the network with the weights that the run began with. Each slot of the batch has `PATHS` paths at a time,
which last for `PERIOD` steps; with `STEPS` of its solver they take two calls of the teacher for each step of training.
These visit equally spaced times, as many as are drawn for a path, and among them those of the run's own calls, which
are learned from. Which path and call a slot learns from at a step is drawn: all is a function of (seed, step, slot).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import Chain
from unstir.diffusion.augmentation import unaugmented
from unstir.diffusion.denoiser import Conditioned, Denoiser
from unstir.diffusion.draw import steered
from unstir.diffusion.paths import follow, targets
from unstir.randomness import Key
from unstir.runs.config import Config
from unstir.train.levers import Batches, Examples, hidden

PATHS, PERIOD, STEPS = 4, 56, (24, 32)


@dataclass(frozen=True, eq=False)
class _Followed:
    states: Tensor  # [PATHS, calls, b, C, H, W]
    targets: Tensor  # like states
    conditions: Tensor | None  # [PATHS, b, ...]


class Paths:
    """The examples of any step. Paths have the conditions of training images of their own, out of ``batches``.

    In an example x_0 is the target of the call at x_t. Where the teacher was trained on augmented images, what took the
    augmentation gets zeros.
    """

    def __init__(self, teacher: Denoiser, config: Config, shape: tuple[int, ...], batches: Batches) -> None:
        self._teacher, self._config, self._shape, self._batches = teacher, config, shape, batches
        self._times = config.grids.visited(teacher.process.schedule)
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
        call = randomness.integers(Key(seed, "call", step, slots), 0, len(self._times) - 2)
        row = torch.arange(len(slots), device=slots.device)
        condition = None if followed.conditions is None else followed.conditions[path, row]
        x_t, target = followed.states[path, call, row], followed.targets[path, call, row]
        t = torch.tensor(self._times, device=slots.device)[call]
        zeros = unaugmented(len(slots), slots.device) if self._config.train.augment else None
        weight = torch.ones_like(x_t[:, 0, 0, 0])
        return Examples(target, t, x_t, weight, condition, augmentation=zeros, x_t=x_t)

    def _follow(self, period: int, slots: Tensor) -> _Followed:
        seed, process, times = self._config.seed, self._teacher.process, self._times
        states, ways, conditions = [], [], []
        for number in range(period * PATHS, (period + 1) * PATHS):
            chain, condition = self._chain(number), self._condition(number, slots)
            visited = chain.visited(process.schedule)
            denoise = steered(Conditioned(self._teacher, condition), chain, process, indices=slots)
            noise = randomness.normal(Key(seed, "start of path", number, slots), self._shape)
            on_path = follow(denoise, process, noise, visited)[[visited.index(t) for t in times]]
            states.append(on_path[:-1])
            ways.append(targets(process, on_path, times))
            conditions += [] if condition is None else [condition]
        known = torch.stack(conditions) if conditions else None
        return _Followed(torch.stack(states), torch.stack(ways), known)

    def _chain(self, number: int) -> Chain:
        key, calls = Key(self._config.seed, "steps of path", number, torch.zeros(1).long()), self._config.loss.calls
        most = max(min(STEPS[1], self._teacher.process.T) // calls, 1)
        least = min(-(-STEPS[0] // calls), most)
        return Chain("unipc", steps=calls * int(randomness.integers(key, least, most)))

    def _condition(self, number: int, slots: Tensor) -> Tensor | None:
        """The conditions of paths of this number, those of images of the data, or hidden as the teacher learned."""
        images, seed = self._batches.images, self._config.seed
        index = randomness.integers(Key(seed, "label of path", number, slots), 0, len(images) - 1)
        condition = self._batches.described(index.to(images.device), Key(seed, "flip of path", number, slots))
        if condition is None:
            return None
        return hidden(self._config, Key(seed, "label dropout of path", number, slots), condition)
