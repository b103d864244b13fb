"""Steering a denoiser away from a weaker one.

    x_0_hat = weak + scale (strong - weak)

Classifier-free guidance (Ho & Salimans 2022): strong has the condition, weak has not; scale 1 is the conditional model,
0 the unconditional one, and beyond 1 the class is exaggerated. The paper's w is scale - 1. Because x_0_hat is affine in
the noise estimate, with coefficients that depend only on t, the same formula holds for eps and v.
Autoguidance (Karras et al. 2024): weak is a smaller or less trained model of the same kind.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Conditioned, Denoise, Prediction


def guided(strong: Denoise, weak: Denoise, scale: float, low: int = 1, high: int = 1 << 30) -> Denoise:
    """The guided denoiser. Where both are one network with different conditions, both are called in one batch.

    Guidance acts at the times ``low`` <= t <= ``high`` (Kynkäänniemi et al. 2024); else only strong. At scale 1, and
    outside the interval, only strong is called; at scale 0 inside it, only weak. A learned variance is that of strong,
    at scale 0 that of weak. The error by time is always that of one of the two, not of what guidance makes of them.
    """

    def guided_denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        inside = (low <= t) & (t <= high)
        if scale == 1 or (isinstance(t, int) and not inside):
            return strong(x_t, t)
        if scale == 0 and isinstance(t, int):
            return weak(x_t, t)
        good, bad = _both(strong, weak, x_t, t)
        mixed: dict[str, Any] = {
            name: torch.lerp(getattr(bad, name), getattr(good, name), scale) for name in ("x0", "raw")
        }
        if scale == 0 and bad.var_fraction is not None:
            mixed["var_fraction"] = bad.var_fraction
        if isinstance(inside, Tensor):
            rows = inside.view(-1, *[1] * (x_t.ndim - 1))
            mixed = {name: torch.where(rows, value, getattr(good, name)) for name, value in mixed.items()}
        return replace(good, **mixed)

    return guided_denoise


def in_plane(x_t: Tensor, weak: Tensor, strong: Tensor, scales: Sequence[float]) -> Tensor:
    """The arrows from x_t to both estimates of the image, and to the guided ones of these scales: float64 [2 + K, 2].

    All are of one image, [C, H, W], and lie in one plane, of which these are coordinates: the first axis points to the
    weak estimate. Lengths are root mean squares over the elements, so that they do not grow with the image.
    """
    to_weak, to_strong = ((x_0 - x_t).double().flatten() / x_t.numel() ** 0.5 for x_0 in (weak, strong))
    length = to_weak.norm()
    along = to_strong @ to_weak / length
    across = (to_strong.square().sum() - along**2).clamp(min=0).sqrt()
    arrows = torch.stack((length, length.new_zeros(()), along, across)).view(2, 2)
    return torch.cat((arrows, torch.stack([torch.lerp(arrows[0], arrows[1], scale) for scale in scales])))


def _both(strong: Denoise, weak: Denoise, x_t: Tensor, t: int | Tensor) -> tuple[Prediction, Prediction]:
    if not isinstance(strong, Conditioned) or not isinstance(weak, Conditioned) or strong.denoiser is not weak.denoiser:
        return strong(x_t, t), weak(x_t, t)
    if strong.condition is None or weak.condition is None:
        return strong(x_t, t), weak(x_t, t)
    times = torch.cat((t, t)) if isinstance(t, Tensor) else t
    both, n = strong.denoiser(torch.cat((x_t, x_t)), times, torch.cat((strong.condition, weak.condition))), len(x_t)

    def half(rows: slice) -> Prediction:
        fraction = None if both.var_fraction is None else both.var_fraction[rows]
        return Prediction(both.x0[rows], both.raw[rows], fraction, both.error)

    return half(slice(n)), half(slice(n, None))
