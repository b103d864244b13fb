"""The variance of a reverse step, between two that are exact for extreme data.

    small    beta~, the posterior's own: exact if the data were a single point
    large    beta = 1 - abar_t / abar_s: exact if the data were standard normal
    learned  exp( v log beta + (1 - v) log beta~ ), with v predicted for each element by the network

The first two are Ho et al. 2020, sec. 3.2, between which the best variance lies for data of at most unit variance; the
third is Nichol & Dhariwal 2021, eq. 15.
"""

from torch import Tensor

from unstir.errors import UserError
from unstir.theory.schedule import Coefficient

VARIANCES = ("small", "large", "learned")


def check_variance(kind: str, learned: bool) -> None:
    """Raise UserError for a ``kind`` that is unknown, or "learned" where the network has not ``learned`` it."""
    if kind not in ("auto", *VARIANCES):
        raise UserError("variance", kind, "is unknown", f"choose one of auto, {', '.join(VARIANCES)}")
    if kind == "learned" and not learned:
        raise UserError("variance", kind, "needs a network that has learned it", {"variance": "auto"})


def chosen_variance(kind: str, learned: bool, every_time: bool) -> str:
    """What "auto" means: learned where it was, else large for a chain that visits every time, else small."""
    if kind != "auto":
        return kind
    return "learned" if learned else "large" if every_time else "small"


def log_variance(
    kind: str, log_small: Coefficient, log_large: Coefficient, fraction: Tensor | None = None
) -> Coefficient:
    """The natural logarithm of the chosen variance; ``fraction`` is v, float [B, C, H, W], needed only by "learned".

    Raises ValueError for another kind, or for "learned" without a fraction.
    """
    if kind == "small":
        return log_small
    if kind == "large":
        return log_large
    if kind != "learned" or fraction is None:
        raise ValueError(
            f"variance {kind!r} is none of {', '.join(VARIANCES)}, or the fraction of a learned one is missing"
        )
    return fraction * log_large + (1 - fraction) * log_small
