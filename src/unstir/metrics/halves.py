"""Standard errors of any figure of a set of images, from random halves of the set.

Halves vary twice as much in variance as the whole, so that half the difference of their figures deviates as the figure
of the whole does. (Resampling with replacement puts images upon themselves, which doubles the bias of a Fréchet
distance, and what is counted by nearest neighbours falls apart.)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unstir import randomness

Figures = dict[str, float]
"""Values or errors of figures by key."""

SPLITS = 5  # sets are split into halves so often to estimate how figures vary with the choice of images
FLOOR_SPLITS = 20  # the same for the floor: of a set or a few, its error decides as much as that of all the samples


def two_halves(num: int, seed: int, stream: str, repeat: int, strata: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A random split of 0..num-1 into halves, of which the second has one more where ``num`` is odd: int64 each.

    Where ``strata``, int64 [num], says the class of each, the halves share every class evenly.
    """
    order = randomness.permutation(seed, stream, repeat, num)
    if strata is not None:
        order = order[strata[order].argsort(stable=True)]
        return order[1::2], order[::2]
    return order[: num // 2], order[num // 2 :]


def halved(
    figures: Callable[[Tensor], Figures], num: int, strata: Tensor | None = None, splits: int = SPLITS
) -> Figures:
    """The standard error of each figure of ``num`` images: half the difference of two halves, root mean square.

    ``figures`` and ``strata`` as in `halves_of`.
    """
    found = halves_of(figures, num, strata, splits)
    return {key: float(differences.square().mean().sqrt()) for key, (_, differences) in found.items()}


def halves_of(
    figures: Callable[[Tensor], Figures], num: int, strata: Tensor | None = None, splits: int = SPLITS
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each figure the mean of two halves of ``num`` images and half their difference, float64 [splits] each.

    ``figures`` maps the indices of some images, int64 [n], to figures of these; ``strata`` as in `two_halves`.
    """
    parts = [two_halves(num, 0, "halves of figures", number, strata) for number in range(splits)]
    pairs = [[figures(part[: num // 2]) for part in both] for both in parts]
    found = {}
    for key in pairs[0][0]:
        values = torch.tensor([[half[key] for half in pair] for pair in pairs], dtype=torch.float64)
        found[key] = values.mean(1), (values[:, 0] - values[:, 1]) / 2
    return found


def error_of_halves(means: Tensor, differences: Tensor) -> Tensor:
    """The standard error of a figure from halves of its images: float64 [...] from [repeats, ...].

    ``means`` are those of the figures of two halves, ``differences`` half their difference; `frechet.standard_error`
    derives it.
    """
    whole = differences.square().mean(0)
    return torch.maximum(whole - means.var(0), whole / 2).sqrt()


def errors_of_means(values: Tensor, strata: Tensor | None) -> list[float]:
    """The standard error of the mean of each row, [K, N], over images; within ``strata``, int64 [N], where given."""
    num = values.shape[1]
    strata = torch.zeros(num, dtype=torch.int64) if strata is None else strata
    numbers = strata.bincount()
    means = torch.zeros(len(values), len(numbers)).double().index_add(1, strata, values) / numbers.clamp(min=1)
    squares = (values - means[:, strata]).square().sum(1) / max(num - int((numbers > 0).sum()), 1)
    found: list[float] = (squares / num).sqrt().tolist()
    return found
