"""Pixels 0..255 and the values in [-1, 1] that networks and the theory compute with: k stands for k / 127.5 - 1."""

import torch
from torch import Tensor

from unstir.errors import UserError

HALF = 127.5  # half the range of a pixel: a difference of 1 in [-1, 1] is so many levels


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1], float [...], as rounded and clamped pixels 0..255, uint8 [...] on the CPU.

    Raises UserError for what is not finite: there is no pixel for it, and a cast would make it black.
    """
    if not bool(images.isfinite().all()):
        raise UserError("images", None, "must be finite numbers")
    return images.detach().float().add(1).mul(HALF).round_().clamp_(0, 255).to("cpu", torch.uint8)


def from_uint8(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels 0..255, uint8 [...], as ``dtype`` [...] in [-1, 1]."""
    return pixels.to(dtype).div_(HALF).sub_(1)
