"""The parts of the U-Net: time embedding, residual block, self-attention, and the two changes of resolution.

The structure is that of Ho et al. 2020, appendix B, so that weights published for it fit after a renaming of keys. The
last layer of every residual branch starts at zero: each block is the identity (or its shortcut) when training begins.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unstir.nn.config import Padding, UNetConfig

_SMALL_MAP = 64  # positions, of which a head's scores take little memory however few channels it has
_MAX_PERIOD = 10_000.0  # Vaswani et al.'s longest period, divided by 2 pi


def sinusoids(t: Tensor, dim: int, freq_shift: float, flip_sin_to_cos: bool) -> Tensor:
    """[sin(t w_i), cos(t w_i)] with w_i = 10000^(-i / (dim/2 - freq_shift)), i = 0..dim/2 - 1: float32 [B, dim].

    ``t`` is [B] of any numeric type, ``dim`` is even and ``flip_sin_to_cos`` puts the cosines first (Vaswani et al.
    2017, sec. 3.5). The arithmetic is float32 whatever the network's type is: bfloat16 cannot tell t = 999 from 1000.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    frequency = torch.exp(-math.log(_MAX_PERIOD) * index / (half - freq_shift))
    angle = t.float()[:, None] * frequency
    waves = (angle.cos(), angle.sin()) if flip_sin_to_cos else (angle.sin(), angle.cos())
    return torch.cat(waves, dim=1)


class TimeEmbedding(nn.Module):
    """Linear(SiLU(Linear(sinusoids(t)))), int64 [B] to [B, 4 channels]; with ``rows`` sinusoids are a trained table."""

    def __init__(self, channels: int, freq_shift: float, flip_sin_to_cos: bool, rows: int = 0) -> None:
        super().__init__()
        self.settings = channels, freq_shift, flip_sin_to_cos  # of the sinusoids
        self.table = nn.Parameter(sinusoids(torch.arange(rows), *self.settings)) if rows else None
        self.first = nn.Linear(channels, 4 * channels)
        self.second = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        """The embedding of the times, [B, 4 channels] in the type of the weights."""
        waves = sinusoids(t, *self.settings) if self.table is None else nn.functional.embedding(t, self.table)
        hidden = nn.functional.silu(self.first(waves.to(self.first.weight.dtype)))
        mixed: Tensor = self.second(hidden)
        return mixed


class GroupNorm(nn.GroupNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias over groups of channels, in the type of x.

    Mean and variance are accumulated in float32 by the kernel itself. Autocast would have CUDA convert its input to
    float32 and pass that on to the activation: twice the memory traffic, for digits the next convolution drops.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x: [B, C, H, W] to [B, C, H, W]."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.group_norm(
                x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
            )


class ResBlock(nn.Module):
    """shortcut(x) + conv(dropout(silu(norm(conv(silu(norm(x))) + linear(time))))).

    With ``config.scale_shift`` the time enters behind the second norm: silu(norm(h) (1 + scale) + shift).
    """

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.out_channels = out_channels
        self.dropout = config.dropout
        self.first_norm = GroupNorm(config.groups, in_channels, config.norm_eps)
        self.first_conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode=config.padding)
        time_channels = 4 * config.widths[0] * (2 if config.label_beside else 1)
        self.time = nn.Linear(time_channels, 2 * out_channels if config.scale_shift else out_channels)
        self.second_norm = GroupNorm(config.groups, out_channels, config.norm_eps)
        self.second_conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, padding_mode=config.padding)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, keep: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], SiLU of time [B, time_channels] to [B, out, H, W]; ``keep``, bool, has what dropout keeps."""
        h, time = self.first_conv(nn.functional.silu(self.first_norm(x))), self.time(time)[:, :, None, None]
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.second_norm(h) * (1 + scale) + shift
        else:
            h = self.second_norm(h + time)
        h = nn.functional.silu(h)
        if keep is not None:
            h = h * keep * (torch.ones((), dtype=h.dtype) / (1 - self.dropout))  # so that a mask is kept in bytes
        out: Tensor = self.shortcut(x) + self.second_conv(h)
        return out


class Attention(nn.Module):
    """x + linear(softmax(q k^T / sqrt(d)) v) over the positions of a feature map, d = channels / heads.

    q, k and v are one product: rows 0..C-1 of ``qkv`` give q, the next C rows k, the last C rows v, each divided into
    heads of d consecutive rows.
    """

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.heads = config.heads_of(channels)
        self.norm = GroupNorm(config.groups, channels, config.norm_eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to the same shape."""
        B, C, H, W = x.shape
        rows = self.norm(x).flatten(2).transpose(1, 2)  # [B, H W, C]
        q, k, v = self.qkv(rows).view(B, H * W, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = _attend(q, k, v).transpose(1, 2).reshape(B, H * W, C)
        change: Tensor = self.out(mixed)
        return x + change.transpose(1, 2).reshape(B, C, H, W)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v: [B, heads, N, d] three times to [B, heads, N, d].

    Trained in bfloat16 on a CPU two products are faster than torch's fused kernel, with which images are drawn. They
    hold N^2 scores a head, so they take its place where these are no more numbers than the head's N d, or few.
    """
    positions, channels = q.shape[2:]
    low = q.dtype == torch.bfloat16 and q.device.type == "cpu"
    if low and q.requires_grad and positions <= max(channels, _SMALL_MAP):
        return torch.softmax(q * channels**-0.5 @ k.transpose(2, 3), dim=3) @ v
    return nn.functional.scaled_dot_product_attention(q, k, v)


class Downsample(nn.Module):
    """A convolution of stride 2, ``size`` x ``size``: [B, C, H, W] to [B, C, H/2, W/2], sides even, or 1, which stay.

    ``padding`` 1 adds a border all round; 0 adds one row below and one column to the right, as TensorFlow does for even
    sizes and Ho et al. 2020 therefore did. The border is of ``mode`` "zeros" or "circular".
    """

    def __init__(self, channels: int, padding: int, size: int = 3, mode: Padding = "zeros") -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, size, stride=2, padding=padding * (size // 2), padding_mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        """x with sides longer than 1 halved."""
        conv, one = self.conv, [side == 1 for side in x.shape[2:]]
        before, reach = int(conv.padding[0]), conv.kernel_size[0] // 2
        if before and not any(one):
            half: Tensor = conv(x)
            return half
        edges = [(reach, reach) if flat else (before, max(before, 1)) for flat in reversed(one)]
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        padded = nn.functional.pad(x, [edge for pair in edges for edge in pair], mode)
        return nn.functional.conv2d(padded, conv.weight, conv.bias, [1 if flat else 2 for flat in one])


class Upsample(nn.Module):
    """Each pixel repeated 2x2, then a 3x3 convolution: [B, C, H, W] to [B, C, 2H, 2W].

    With ``spreads`` a transposed 5x5 convolution of stride 2 stands in place of the repeating. The border of the 3x3
    convolution is of ``mode`` "zeros" or "circular".
    """

    def __init__(self, channels: int, spreads: bool = False, mode: Padding = "zeros") -> None:
        super().__init__()
        spread = nn.ConvTranspose2d(channels, channels, 5, stride=2, padding=2, output_padding=1) if spreads else None
        self.spread = spread
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=mode)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """x with twice its sides, but for those that are no longer in ``like`` [B, C', H', W'], the next skip."""
        scale = [2 if after > before else 1 for before, after in zip(x.shape[2:], like.shape[2:], strict=True)]
        if self.spread is None:
            spread = nn.functional.interpolate(x, scale_factor=[float(factor) for factor in scale], mode="nearest")
        else:
            more = [factor - 1 for factor in scale]
            spread = nn.functional.conv_transpose2d(x, self.spread.weight, self.spread.bias, scale, 2, more)
        double: Tensor = self.conv(spread)
        return double


class Level(nn.Module):
    """The blocks of one resolution, each with its attention (or the identity), and the resize to the next one.

    Where it is ``checkpointed``, the backward pass keeps the inputs of each of these alone and computes the rest a
    second time (activation checkpointing: Chen et al. 2016), with the same gradients to the last bit.
    """

    def __init__(self, blocks: list[ResBlock], attentions: list[nn.Module], resize: nn.Module | None) -> None:
        super().__init__()
        self.blocks = cast("list[ResBlock]", nn.ModuleList(blocks))  # ModuleList cannot say what it holds
        self.attentions = cast("list[nn.Module]", nn.ModuleList(attentions))
        self.resize = resize
        self.checkpointed = False

    def stages(self) -> list[Callable[..., Tensor]]:
        """Each block with its attention as a function: (time, keep, x, ...) to x, of all x joined."""
        return [partial(_stage, *pair) for pair in zip(self.blocks, self.attentions, strict=True)]

    def run(self, stage: Callable[..., Tensor], *given: Tensor | None) -> Tensor:
        """``stage(*given)``, recomputed in the backward pass where the level is checkpointed, with the same masks."""
        if self.checkpointed and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(stage, *given, use_reentrant=False, preserve_rng_state=False)
            return recomputed
        return stage(*given)


def _stage(block: ResBlock, attention: nn.Module, time: Tensor, keep: Tensor | None, *parts: Tensor) -> Tensor:
    out: Tensor = attention(block(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), time, keep))
    return out
