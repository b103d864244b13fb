"""Values of data and those about [-1, 1] that networks and the theory compute with.

Pixels are 0..255, and k stands for k / 127.5 - 1. Data of floating point have units of their own, which a `Scale` of
each channel maps to [-1, 1]; in them NaN is a value that is missing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.progress import counted, sized

HALF = 127.5  # half the range of a pixel: a difference of 1 in [-1, 1] is so many levels


def pictured(shape: Sequence[int], scale: "Scale") -> str:
    """The size and kind of images: "8x8 grey", "24x40 RGB", "24x40 with 5 channels of float32"."""
    several = f"with {counted(shape[0], 'channel')}"
    kind = f"{several} of float32" if scale.is_float else {1: "grey", 3: "RGB"}.get(shape[0], several)
    return f"{sized(shape[1:])} {kind}"


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1], float [...], as rounded, clamped uint8 [...] on the CPU. UserError for what is not finite."""
    if not bool(images.isfinite().all()):
        raise UserError("images", None, "must be finite numbers")
    return images.detach().float().add(1).mul(HALF).round_().clamp_(0, 255).to("cpu", torch.uint8)


def from_uint8(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels 0..255, uint8 [...], as ``dtype`` [...] in [-1, 1]."""
    return pixels.to(dtype).div_(HALF).sub_(1)


@dataclass(frozen=True)
class Scale:
    """How the values of a data set become those in [-1, 1]: by an affine map a channel.

    In units of the data ``low`` of each channel is -1 and ``high`` is 1. Without any they are pixels, uint8 0..255.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(low, high) by channel."""
        return list(zip(self.low, self.high, strict=False))

    @property
    def in_words(self) -> str:
        """What the values are and which of them -1 and 1 stand for."""
        digits = 4 if all(high - low > abs(low) / 1000 for low, high in self.pairs) else 9
        ends = ", ".join(f"{low:.{digits}g}..{high:.{digits}g}" for low, high in self.pairs)
        return f"float32; -1..1 is {ends}, by channel" if ends else "pixels 0..255"

    @property
    def is_float(self) -> bool:
        """Whether the values are float32 in units of their own, where NaN is missing, and not pixels."""
        return bool(self.low)

    def to_model(self, values: Tensor) -> Tensor:
        """Values of the data, uint8 or float32 [B, C, H, W], as float32 about [-1, 1]; NaN stays NaN."""
        if not self.is_float:
            return from_uint8(values)
        low, half = self._columns(values.device)
        return (values.float() - low) / half - 1

    def to_units(self, images: Tensor) -> Tensor:
        """Images about [-1, 1], float [B, C, H, W], in units of the data, on the CPU; UserError for NaN in pixels."""
        if not self.is_float:
            return to_uint8(images)
        low, half = self._columns(torch.device("cpu"))
        return (images.detach().float().cpu() + 1) * half + low

    def shown(self, values: Tensor, channels: Sequence[int] = ()) -> Tensor:
        """Values of the data as `shown` has images, what is missing in grey."""
        return shown(known(self.to_model(values), self)[0], channels)

    def bits(self, present: Tensor) -> Tensor:
        """How far bounds in units of the data exceed those in [-1, 1], in bits per dimension that is ``present``."""
        half = [math.log2((high - low) / 2) for low, high in zip(self.low, self.high, strict=True)]
        counts = present.flatten(2).sum(2).double()
        return counts @ torch.tensor(half, dtype=torch.float64, device=counts.device) / counts.sum(1)

    def _columns(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The value that becomes -1, and half the range: float32 [C, 1, 1]."""
        low, high = (torch.tensor(ends, dtype=torch.float64)[:, None, None] for ends in (self.low, self.high))
        return low.float().to(device), ((high - low) / 2).float().to(device)


PIXELS = Scale()


def shown(images: Tensor, channels: Sequence[int] = ()) -> Tensor:
    """Images about [-1, 1], float [N, C, H, W], as uint8 [N, 1 or 3, H, W]: these ``channels``, or all of 3, or one."""
    count = images.shape[1]
    chosen = list(channels or (range(3) if count == 3 else range(1)))
    return to_uint8(images if chosen == list(range(count)) else images[:, chosen])


def known(x_0: Tensor, scale: Scale) -> tuple[Tensor, Tensor | None]:
    """Images with 0 in the place of NaN, and which of their values are known, bool like them; None where all are."""
    if not scale.is_float:
        return x_0, None
    present = ~x_0.isnan()
    return torch.where(present, x_0, 0.0), present


def enlarged(images: Tensor, shape: tuple[int, ...], source: str = "") -> Tensor:
    """Images [N, C, h, w] repeated by a whole factor to the sides of ``shape``; UserError where there is none."""
    down, right = (size // max(small, 1) for size, small in zip(shape[-2:], images.shape[2:], strict=True))
    large = images.repeat_interleave(max(down, 1), 2).repeat_interleave(max(right, 1), 3)
    if down != right or large.shape[2:] != shape[-2:]:
        sides = f"has sides {list(images.shape[2:])}, of which those of the images, {list(shape[-2:])}, are no multiple"
        raise UserError("" if source else "condition", source or None, sides, "divide both by one whole number")
    return large
