"""The network of the report's own code, made again from its description, so that real state dicts can be written.

Names of parameters are those of its checkpoints. Without ``labels`` it is the first network: its resizing is a strided
and a plain 3x3 convolution. With them it is the second, by class: label 0 says nothing, each block projects time and
label apart, every level down has attention and none up, levels shrink by the sum of a 3x3 and a 5x5 convolution and
grow by a transposed 5x5 one before the 3x3. Swish is SiLU.
"""

import math

import torch
from torch import nn


def waves(T, width):
    """sin and cos in turns, with frequencies 10000^(-2 i / width): [T, width]."""
    angles = torch.arange(T)[:, None] * torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)


def perceptron(table, width, channels):
    return nn.Sequential(table, nn.Linear(width, channels), nn.SiLU(), nn.Linear(channels, channels))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.group_norm = nn.GroupNorm(32, channels)
        for name in ("proj_q", "proj_k", "proj_v", "proj"):
            self.add_module(name, nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        normed = self.group_norm(x)
        q, k, v = (project(normed).flatten(2) for project in (self.proj_q, self.proj_k, self.proj_v))
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(x.shape[1]), dim=2)  # [B, from, to]
        return x + self.proj((v @ weights.transpose(1, 2)).view_as(x))


class Block(nn.Module):
    def __init__(self, inputs, channels, embedded, attention, by_class):
        super().__init__()
        self.block1 = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, channels, 3, padding=1))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(embedded, channels))
        self.cond_proj = nn.Sequential(nn.SiLU(), nn.Linear(embedded, channels)) if by_class else None
        second = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Dropout(0.15), second)
        self.shortcut = nn.Identity() if inputs == channels else nn.Conv2d(inputs, channels, 1)
        self.attn = Attention(channels) if attention else nn.Identity()

    def forward(self, x, time, label):
        shift = self.temb_proj(time) if self.cond_proj is None else self.temb_proj(time) + self.cond_proj(label)
        return self.attn(self.block2(self.block1(x) + shift[:, :, None, None]) + self.shortcut(x))


class Shrink(nn.Module):
    def __init__(self, channels, by_class):
        super().__init__()
        names = {"c1": 3, "c2": 5} if by_class else {"main": 3}
        for name, size in names.items():
            self.add_module(name, nn.Conv2d(channels, channels, size, stride=2, padding=size // 2))

    def forward(self, x, *_):
        return sum(conv(x) for conv in self.children())


class Grow(nn.Module):
    def __init__(self, channels, by_class):
        super().__init__()
        self.add_module("c" if by_class else "main", nn.Conv2d(channels, channels, 3, padding=1))
        if by_class:
            self.t = nn.ConvTranspose2d(channels, channels, 5, stride=2, padding=2, output_padding=1)

    def forward(self, x, *_):
        if hasattr(self, "t"):
            return self.c(self.t(x))
        return self.main(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


class Network(nn.Module):
    """Arguments as its code has them; ``labels`` is how many classes it knows, 0 for the first network."""

    def __init__(self, T, ch, ch_mult, attn, num_res_blocks, labels=0):
        super().__init__()
        embedded, widths, last = 4 * ch, [ch * mult for mult in ch_mult], len(ch_mult) - 1
        self.time_embedding, self.cond_embedding = nn.Module(), nn.Module() if labels else None
        table = nn.Embedding.from_pretrained(waves(T, ch), freeze=not labels)
        self.time_embedding.timembedding = perceptron(table, ch, embedded)
        if labels:
            table = nn.Embedding(labels + 1, ch, padding_idx=0)
            self.cond_embedding.condEmbedding = perceptron(table, ch, embedded)
        self.head = nn.Conv2d(3, ch, 3, padding=1)
        down, skips, width = [], [ch], ch
        for level, wide in enumerate(widths):
            for _ in range(num_res_blocks):
                down.append(Block(width, wide, embedded, bool(labels) or level in attn, labels))
                width = wide
                skips.append(width)
            if level < last:
                down.append(Shrink(width, labels))
                skips.append(width)
        self.downblocks = nn.ModuleList(down)
        self.middleblocks = nn.ModuleList(Block(width, width, embedded, first, labels) for first in (True, False))
        up = []
        for level, wide in reversed(list(enumerate(widths))):
            for _ in range(num_res_blocks + 1):
                up.append(Block(width + skips.pop(), wide, embedded, not labels and level in attn, labels))
                width = wide
            if level:
                up.append(Grow(width, labels))
        self.upblocks = nn.ModuleList(up)
        self.tail = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x, t, label=None):
        time = self.time_embedding.timembedding(t)
        label = None if label is None else self.cond_embedding.condEmbedding(label)
        x = self.head(x)
        kept = [x]
        for layer in self.downblocks:
            x = layer(x, time, label)
            kept.append(x)
        for layer in self.middleblocks:
            x = layer(x, time, label)
        for layer in self.upblocks:
            x = layer(torch.cat((x, kept.pop()), dim=1) if isinstance(layer, Block) else x, time, label)
        return self.tail(x)
