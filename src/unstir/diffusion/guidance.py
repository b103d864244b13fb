"""Steering a denoiser away from a weaker one.

    x_0_hat = weak + scale (strong - weak)

Classifier-free guidance (Ho & Salimans 2022): strong has the label, weak has not; scale 1 is the conditional model,
0 the unconditional one, and beyond 1 the class is exaggerated. The paper's and the report's w is scale - 1. Because
x_0_hat is affine in the noise estimate, with coefficients that depend only on t, the same formula holds for eps and v.
Autoguidance (Karras et al. 2024): weak is a smaller or less trained model of the same kind.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, Labelled, Prediction


@dataclass(frozen=True)
class Interval:
    """The times ``low`` <= t <= ``high`` at which guidance acts (Kynkäänniemi et al. 2024); else only strong."""

    low: int = 1
    high: int = 1 << 30

    def __contains__(self, t: int) -> bool:
        return self.low <= t <= self.high

    def of_each(self, t: Tensor) -> Tensor:
        """Whether each time of ``t``, int64 [B], is in the interval: bool [B]."""
        return (self.low <= t) & (t <= self.high)


ALWAYS = Interval()


def guided(strong: Denoise, weak: Denoise, scale: float, interval: Interval = ALWAYS) -> Denoise:
    """The guided denoiser. Where both are one network with different labels, both are called in one batch.

    At scale 1, and outside the interval, only strong is called; at scale 0 inside it, only weak. A learned variance
    is that of strong, at scale 0 that of weak.
    """

    def guided_denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        if scale == 1 or (isinstance(t, int) and t not in interval):
            return strong(x_t, t)
        if scale == 0 and isinstance(t, int):
            return weak(x_t, t)
        good, bad = _both(strong, weak, x_t, t)
        mixed = {name: torch.lerp(getattr(bad, name), getattr(good, name), scale) for name in ("x0", "raw")}
        if scale == 0 and bad.var_fraction is not None:
            mixed["var_fraction"] = bad.var_fraction
        if isinstance(t, Tensor):
            inside = interval.of_each(t).view(-1, *[1] * (x_t.ndim - 1))
            mixed = {name: torch.where(inside, value, getattr(good, name)) for name, value in mixed.items()}
        return replace(good, **mixed)

    return guided_denoise


def _both(strong: Denoise, weak: Denoise, x_t: Tensor, t: int | Tensor) -> tuple[Prediction, Prediction]:
    if not isinstance(strong, Labelled) or not isinstance(weak, Labelled) or strong.denoiser is not weak.denoiser:
        return strong(x_t, t), weak(x_t, t)
    if strong.label is None or weak.label is None:
        return strong(x_t, t), weak(x_t, t)
    times = torch.cat((t, t)) if isinstance(t, Tensor) else t
    both, n = strong.denoiser(torch.cat((x_t, x_t)), times, torch.cat((strong.label, weak.label))), len(x_t)
    fraction = both.var_fraction
    return (
        Prediction(both.x0[:n], both.raw[:n], None if fraction is None else fraction[:n]),
        Prediction(both.x0[n:], both.raw[n:], None if fraction is None else fraction[n:]),
    )
