"""The time of a diffusion step as a vector the network can use.

A time t becomes sines and cosines at geometrically spaced frequencies (Vaswani et al. 2017, section 3.5) and a small
perceptron mixes them (Ho et al. 2020, appendix B).
"""

import math

import torch
from torch import Tensor, nn

MAX_PERIOD = 10_000.0  # Vaswani et al.'s longest period, divided by 2 pi


def sinusoids(t: Tensor, dim: int, freq_shift: float, flip_sin_to_cos: bool) -> Tensor:
    """[sin(t w_i), cos(t w_i)] with w_i = 10000^(-i / (dim/2 - freq_shift)), i = 0..dim/2 - 1: float32 [B, dim].

    ``t`` is [B] of any numeric type, ``dim`` is even and ``flip_sin_to_cos`` puts the cosines first. The arithmetic is
    float32 whatever the network's type is: bfloat16 cannot tell t = 999 from t = 1000, and published weights were
    trained on float32 values.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    frequency = torch.exp(-math.log(MAX_PERIOD) * index / (half - freq_shift))
    angle = t.float()[:, None] * frequency
    waves = (angle.cos(), angle.sin()) if flip_sin_to_cos else (angle.sin(), angle.cos())
    return torch.cat(waves, dim=1)


class TimeEmbedding(nn.Module):
    """Linear(SiLU(Linear(sinusoids(t)))): int64 [B] to [B, 4 channels]."""

    def __init__(self, channels: int, freq_shift: float, flip_sin_to_cos: bool) -> None:
        super().__init__()
        self.channels = channels
        self.freq_shift = freq_shift
        self.flip_sin_to_cos = flip_sin_to_cos
        self.first = nn.Linear(channels, 4 * channels)
        self.second = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        """The embedding of the times, [B, 4 channels] in the type of the weights."""
        waves = sinusoids(t, self.channels, self.freq_shift, self.flip_sin_to_cos)
        hidden = nn.functional.silu(self.first(waves.to(self.first.weight.dtype)))
        mixed: Tensor = self.second(hidden)
        return mixed
