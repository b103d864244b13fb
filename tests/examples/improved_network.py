"""The network of OpenAI's improved-diffusion, made again from its description, so that real state dicts can be written.

Names of parameters are those of its checkpoints: input_blocks and output_blocks are flat rows of residual blocks with
their attentions and resizings, in which level follows level. Cosines stand before sines. With ``scale_shift`` the time
scales the second norm; with ``labels`` a table of them is added to the time. Group norms are of 32 groups. The rows of
``qkv`` are q, k and v of the first head, then of the next.
"""

import math

import torch
from torch import nn

Conv = nn.Conv2d


def waves(t, width):
    """cos, then sin, of t w_i with w_i = 10000^(-i / (width / 2)): [B, width]."""
    angles = t.float()[:, None] * torch.exp(-math.log(10_000.0) * torch.arange(width // 2) / (width // 2))
    return torch.cat((angles.cos(), angles.sin()), dim=1)


class Block(nn.Module):
    def __init__(self, inputs, channels, embedded, scale_shift):
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), Conv(inputs, channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, channels * (2 if scale_shift else 1)))
        last = Conv(channels, channels, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Dropout(0.3), last)
        self.skip_connection = nn.Identity() if inputs == channels else Conv(inputs, channels, 1)

    def forward(self, x, time):
        h, said = self.in_layers(x), self.emb_layers(time)[:, :, None, None]
        if self.scale_shift:
            norm, *rest = self.out_layers
            scale, shift = said.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
            for layer in rest:
                h = layer(h)
        else:
            h = self.out_layers(h + said)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x, time):
        flat = x.flatten(2)
        found = []
        for head in self.qkv(self.norm(flat)).chunk(self.heads, dim=1):
            q, k, v = head.chunk(3, dim=1)
            weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=2)  # [B, from, to]
            found.append(v @ weights.transpose(1, 2))
        return (flat + self.proj_out(torch.cat(found, dim=1))).view_as(x)


class Shrink(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = Conv(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, time):
        return self.op(x)


class Grow(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = Conv(channels, channels, 3, padding=1)

    def forward(self, x, time):
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0))


class Input(Conv):
    def forward(self, x, time):
        return super().forward(x)


def row(*layers):
    return nn.ModuleList(layers)


class Network(nn.Module):
    def __init__(
        self, ch=32, mult=(1, 2), blocks=1, attn=(1,), heads=4, images=3, outputs=None, scale_shift=False, labels=0
    ):  # fmt: skip
        super().__init__()
        self.ch = ch
        self.time_embed = nn.Sequential(nn.Linear(ch, 4 * ch), nn.SiLU(), nn.Linear(4 * ch, 4 * ch))
        self.label_emb = nn.Embedding(labels, 4 * ch) if labels else None
        self.input_blocks = nn.ModuleList([row(Input(images, ch, 3, padding=1))])
        self.output_blocks = nn.ModuleList()

        def block(inputs, channels):
            return Block(inputs, channels, 4 * ch, scale_shift)

        def attention(level, channels):
            return [Attention(channels, heads)] if level in attn else []

        width, skips, last = ch, [ch], len(mult) - 1
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                self.input_blocks.append(row(block(width, factor * ch), *attention(level, factor * ch)))
                width = factor * ch
                skips.append(width)
            if level < last:
                self.input_blocks.append(row(Shrink(width)))
                skips.append(width)
        self.middle_block = row(block(width, width), Attention(width, heads), block(width, width))
        for level, factor in reversed(list(enumerate(mult))):
            for n in range(blocks + 1):
                layers = [block(width + skips.pop(), factor * ch), *attention(level, factor * ch)]
                width = factor * ch
                if level and n == blocks:
                    layers.append(Grow(width))
                self.output_blocks.append(row(*layers))
        self.out = nn.Sequential(nn.GroupNorm(32, ch), nn.SiLU(), Conv(ch, outputs or images, 3, padding=1))

    def forward(self, x, t, label=None):
        time = self.time_embed(waves(t, self.ch).to(x.dtype))
        if self.label_emb is not None:
            time = time + self.label_emb(label)
        h, kept = x, []
        for layers in self.input_blocks:
            for layer in layers:
                h = layer(h, time)
            kept.append(h)
        for layer in self.middle_block:
            h = layer(h, time)
        for layers in self.output_blocks:
            h = torch.cat((h, kept.pop()), dim=1)
            for layer in layers:
                h = layer(h, time)
        return self.out(h)
