"""From a network to an estimate of the clean image, the one thing that samplers and losses ask for."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstir.randomness import Key
from unstir.theory.parameterization import Parameterization
from unstir.theory.process import Process


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says of x_t: the estimate ``x0`` of the clean image and the network's own output ``raw``."""

    x0: Tensor
    raw: Tensor


Denoise = Callable[[Tensor, int], Prediction]
"""The one interface of every sampler: (x_t [B, C, H, W], t in 1..T) -> Prediction. Wrappers steer it."""


@dataclass(frozen=True)
class Denoiser:
    """A network that has learned to see through noise, with the process it was trained on.

    ``net(x, network_time, label)`` is called under autocast where ``dtype`` is bfloat16; all arithmetic around it keeps
    the dtype of x_t. The network is told t - 1 (0..T-1), the convention of every published checkpoint; nothing else
    in the package counts from there.
    """

    net: nn.Module
    process: Process
    parameterization: Parameterization
    dtype: torch.dtype = torch.float32

    def __call__(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None) -> Prediction:
        """The prediction for x_t [B, C, H, W] at time t: int64 [B], or an int, checked to be in 1..T (ValueError)."""
        if isinstance(t, int) and not 1 <= t <= self.process.T:
            raise ValueError(f"t={t} is outside 1..{self.process.T}; t = 0 is the clean image")
        raw = self.raw(x_t, t, label)
        return Prediction(self.parameterization.x0(self.process.schedule, x_t, t, raw), raw)

    def raw(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None, dropout_key: Key | None = None) -> Tensor:
        """The network's output F in x_t's dtype; ``dropout_key`` is needed in training mode with dropout."""
        time = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t
        options = {} if dropout_key is None else {"dropout_key": dropout_key}
        with autocast(x_t.device, self.dtype):
            output: Tensor = self.net(x_t, time - 1, label, **options)
        return output.to(x_t.dtype)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast to ``dtype``, or nothing where it is float32 (or wider), the dtype of the weights themselves."""
    if dtype == torch.bfloat16:
        return torch.autocast(device.type, dtype=dtype)
    return nullcontext()


def labelled(denoiser: Denoiser, label: Tensor | None) -> Denoise:
    """The denoiser with its labels, int64 [B], filled in (None where it has no classes)."""
    return lambda x_t, t: denoiser(x_t, t, label)


def clipped(denoise: Denoise) -> Denoise:
    """The denoiser with its estimate clamped to [-1, 1], before any sampler's mean is computed from it."""

    def clipped_denoise(x_t: Tensor, t: int) -> Prediction:
        prediction = denoise(x_t, t)
        return Prediction(prediction.x0.clamp(-1, 1), prediction.raw)

    return clipped_denoise
