"""Which times to train on, where their losses differ by orders of magnitude (Nichol & Dhariwal 2021, sec. 3.3).

Importance sampling draws t with probability p_t ~ sqrt( E[L_t^2] ), estimated from the last ten losses seen at each t,
and weighs the loss by 1 / (T p_t), which keeps its expectation and lowers its variance. Until every t has been seen ten
times all are equally probable. A thousandth of the probability is spread evenly, so that every t keeps being drawn. No
t has more than about nine tenths, so that one extreme loss cannot keep the others from being drawn; that raises the
variance by a ninth at most. A loss that is not finite is not recorded.

This table is the only state of training that depends on history: it is saved with every checkpoint.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unstir import randomness
from unstir.randomness import Key

REMEMBERED = 10
UNIFORM_SHARE = 0.001
MOST_OF_OTHERS = 9.0
"""The greatest root of a time, in sums of all others: nine tenths of the probability."""


@dataclass
class LossHistory:
    """The last losses seen at each time.

    ``losses`` is float32 [T, 10], a ring by time; ``counts`` is int64 [T], how many were seen of each. Row i is time
    i + 1. Both are changed in place, on their device and without waiting for it.
    """

    losses: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, T: int, device: torch.device) -> "LossHistory":
        """A history in which nothing has been seen."""
        return cls(torch.zeros(T, REMEMBERED, device=device), torch.zeros(T, dtype=torch.int64, device=device))

    def probabilities(self) -> Tensor:
        """p_t of the times 1..T: float32 [T], all equal until each was seen ten times."""
        T, tiny = len(self.counts), torch.finfo(torch.float32).tiny
        # Any loss that float32 holds may be squared: each row is divided by its greatest, all roots by the greatest.
        most = self.losses.abs().amax(1, keepdim=True).clamp(min=tiny)
        root = (self.losses / most).square().mean(1).sqrt() * (most[:, 0] / most.max())
        others = root.scatter(0, root.argmax(0, keepdim=True), 0.0).sum()
        root = root.clamp(max=MOST_OF_OTHERS * others)
        share = root / root.sum().clamp(min=tiny)
        learned = share * (1 - UNIFORM_SHARE) + UNIFORM_SHARE / T
        ready = (self.counts >= REMEMBERED).all() & (root.sum() > 0)
        return torch.where(ready, learned, torch.full_like(learned, 1 / T))

    def draw(self, key: Key) -> tuple[Tensor, Tensor]:
        """(t, weight) per slot: times in 1..T, int64 [B], and the factors 1 / (T p_t) of their losses, float32 [B]."""
        p = self.probabilities()
        wide = torch.float32 if p.device.type == "mps" else torch.float64  # so that rare times are not rounded away
        edges = p.to(wide).cumsum(0)
        uniform = randomness.uniform(key, wide) * edges[-1]
        row = torch.searchsorted(edges, uniform, right=True).clamp(max=len(p) - 1)
        return row + 1, 1 / (len(p) * p[row])

    def record(self, t: Tensor, losses: Tensor, applied: Tensor) -> None:
        """Record the losses [B] of a step at times ``t`` [B], in the order of the batch, unless not ``applied``.

        A time that occurs more often than the ring is long keeps its last ones. One that is not finite is left out.
        """
        taken = applied & losses.isfinite()
        same = (t[:, None] == t[None, :]) & taken
        before, after = same.tril(-1).sum(1), same.triu(1).sum(1)
        row = t - 1
        place = (self.counts[row] + before) % REMEMBERED
        kept = taken & (after < REMEMBERED)
        # What is not to be kept goes to a row of its own, so that every other entry is written once, in any order.
        spare = torch.cat((self.losses, self.losses.new_zeros(1, REMEMBERED)))
        spare[torch.where(kept, row, len(self.losses)), place] = losses.to(spare.dtype)
        self.losses.copy_(spare[:-1])
        self.counts.index_add_(0, row, taken.long())
