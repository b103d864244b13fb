"""Power-function averages of the weights, and any other of them from a few that were saved.

After update n the average of exponent g has taken the weights w_k of update k with the share p_k ~ k^g. Unlike an
exponential average its profile is as wide, relative to the training so far, at any n:

    width = std of the profile / n,   width^2 = (g + 1) / ((g + 2)^2 (g + 3))      (Karras et al. 2024, sec. 3.1)

Its updates are w <- decay w + (1 - decay) w_n with decay = (1 - 1/n)^(g + 1) (eq. 127). A combination of saved averages
has their combined profile, so that of another width is approximated by least squares (sec. 3.2, algorithm 3): the
average need not be chosen before training.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from unstir.errors import UserError

WIDTHS = (0.05, 0.1)
"""The two that training keeps, as the paper's."""


@cache
def exponent(width: float) -> float:
    """The exponent g > 0 of a relative width. Raises UserError for a width that none has."""
    if not 0.001 <= width <= 0.28:
        raise UserError("ema_width", width, "is outside 0.001..0.28", "0.1 is usual")
    low, high = 0.0, 1 / width  # width^2 < 1 / (g + 2)^2, and it falls with g
    for _ in range(100):
        g = (low + high) / 2
        low, high = (g, high) if (g + 1) / ((g + 2) ** 2 * (g + 3)) > width**2 else (low, g)
    return low


def decay(width: float, update: int) -> float:
    """The decay of the update of this number, counted from 1; the first takes the weights as they are."""
    return float((1 - 1 / update) ** (exponent(width) + 1))


def combination(saved: Sequence[tuple[int, float]], wanted: tuple[int, float]) -> tuple[list[float], float]:
    """The shares of saved averages that make the ``wanted`` one best, of sum 1, and the relative error of its profile.

    An average is its number of updates, 1 or more, and its width. The error is the root of the squared difference of
    the two profiles over that of the wanted one: 0 where it was saved itself.
    """
    ours, theirs = (
        torch.tensor([(n, exponent(width)) for n, width in each], dtype=torch.float64) for each in (saved, [wanted])
    )
    among, with_wanted, norm = _products(ours, ours), _products(ours, theirs), _products(theirs, theirs)
    shares = torch.linalg.lstsq(among, with_wanted, driver="gelsd").solution
    shares = shares / shares.sum()
    square = 1 + (shares.mT @ (among @ shares - 2 * with_wanted)) / norm
    return shares[:, 0].tolist(), square.clamp(min=0).sqrt().item()


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Integrals of products of profiles (n, g), (g + 1) t^g / n^(g + 1): [A, 2] and [B, 2] to [A, B] (eq. 151)."""
    (n_a, g_a), (n_b, g_b) = a[:, None].unbind(2), b[None].unbind(2)
    overlap = torch.where(n_a < n_b, (n_a / n_b) ** g_b, (n_b / n_a) ** g_a) / torch.maximum(n_a, n_b)
    return overlap * (g_a + 1) * (g_b + 1) / (g_a + g_b + 1)
