"""Do values of one kind tend to lie below those of another? Two tests of ranks, exact under "they are all alike".

Mann & Whitney 1947 count the pairs (a, b) with a < b: the share of them is the probability that a lies below b, and it
sees a shift of the whole. A few extreme values among many ordinary ones it cannot see; for those count the values
of a below the j-th smallest of b. Let n values a and m values b be ranked together, in random order. At least c of a
precede the j-th of b if and only if the first c + j - 1 ranks hold fewer than j of b, so

    P(count >= c) = P(Hypergeometric(n + m, m, c + j - 1) <= j - 1)

exactly (the precedence test: Epstein 1954, Nelson 1963). A binomial tail with rate j/m would take for known a rate that
is measured, and accuse too often. A value equal to the j-th of b is not counted, which errs towards "alike".
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Nearer:
    """The ``probability`` that a sample lies nearer than a new image (1/2 for equals), and the test of more than 1/2.

    ``standard_error`` is DeLong et al. 1988's, 0 where the sets do not overlap; ``p`` is one-sided.
    """

    probability: float
    standard_error: float
    p: float


@dataclass(frozen=True)
class Copies:
    """The ``count`` of samples whose relative distance is below ``threshold``; of new images, ``expected`` at most.

    ``p`` is the chance of so many new images (or more than that, where the threshold is no rank); ``least`` is
    the count that the verdict would call copies, None where no number of samples could be, as there are too few
    held-out images beside them.
    """

    count: int
    expected: float
    threshold: float
    p: float
    least: int | None


def mann_whitney(a: Tensor, b: Tensor) -> Nearer:
    """Whether values ``a`` [n] tend to be smaller than ``b`` [m]: the normal approximation, ties and continuity minded.

    Two values or more of each. The standard error is that of DeLong et al. 1988, from each value's share of the other
    set that it precedes, a tie counting half.
    """
    n, m = len(a), len(b)
    of_a, of_b = 1 - _preceding(b, a), _preceding(a, b)
    ties = torch.unique_consecutive(torch.cat((a, b)).sort().values, return_counts=True)[1].double()
    correction = ((ties**3 - ties).sum() / ((n + m) * (n + m - 1))).item()
    deviation = math.sqrt(max(n * m / 12 * (n + m + 1 - correction), 0.0))
    probability = of_a.mean().item()
    z = (n * m * (probability - 0.5) - 0.5) / deviation if deviation else -math.inf
    error = math.sqrt(of_a.var().item() / n + of_b.var().item() / m)
    return Nearer(probability, error, math.erfc(z / math.sqrt(2)) / 2)


def precedence(a: Tensor, b: Tensor, level: float, most: float = math.inf) -> Copies:
    """How many of ``a`` [n] lie below the j-th smallest of ``b`` [m], j = 1 + m // 1000, and by what chance.

    None at ``most`` or above counts, which lowers the count and leaves p valid. ``least`` is for p <= ``level``.
    """
    n, m = len(a), len(b)
    j = 1 + m // 1000
    threshold = min(b.kthvalue(j).values.item(), most)
    count = int((a < threshold).sum())
    least = 1 + bisect_left(range(1, n + 1), True, key=lambda c: precedence_p(c, n, m, j) <= level)
    p = precedence_p(count, n, m, j)
    return Copies(count, j * n / (m + 1), threshold, p, least if least <= n else None)


def precedence_p(count: int, n: int, m: int, j: int) -> float:
    """The chance that ``count`` or more of n values precede the j-th of m others, all alike; in whole numbers."""
    first = count + j - 1
    ways = sum(math.comb(m, i) * math.comb(n, first - i) for i in range(min(j, first + 1)))
    return ways / math.comb(n + m, first)


def _preceding(a: Tensor, b: Tensor) -> Tensor:
    """For each of ``b`` the share of ``a`` that is smaller, an equal one counting half: float64, the shape of b."""
    ordered = a.sort().values
    below, upto = (torch.searchsorted(ordered, b, right=right) for right in (False, True))
    return (below + upto).double() / (2 * len(a))
