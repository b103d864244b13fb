"""A network of your own: a small diffusion transformer (Peebles & Xie 2023).

Train it on the digits by `PYTHONPATH=examples unstir train examples/dit.toml`, in the folder above this one. A run only
names its network, and you say where its code is and that it may run, for every command that needs the network:
`PYTHONPATH=examples UNSTIR_PARTS=dit unstir sample runs/dit --num 16`.
"""

import torch
from torch import Tensor, nn

import unstir


class Block(nn.Module):
    """Self-attention and an MLP, each normed, scaled, shifted and gated by the time and the label (adaLN-Zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.steer = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.steer.weight)  # every gate is closed at first: the block does nothing
        nn.init.zeros_(self.steer.bias)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens [B, N, D] and their condition [B, 1, D] to tokens."""
        shift, scale, gate, shift2, scale2, gate2 = self.steer(c).chunk(6, dim=-1)
        parts = self.qkv(self.norm(x) * (1 + scale) + shift).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate * self.out(attended)
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)


@unstir.network
class DiT(nn.Module):
    """Images as patches, patches as tokens; the options below are those of [model.options] in the settings."""

    def __init__(
        self, in_channels: int, out_channels: int, num_labels: int,
        width: int = 96, depth: int = 4, heads: int = 4, patch: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch = patch
        self.input = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_labels, width) if num_labels else None
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, out_channels * patch**2)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """F(x, t): float [B, in_channels, H, W], int64 [B] in 0..T-1, int64 [B] to [B, out_channels, H, W]."""
        tokens = self.input(x)
        rows, columns = tokens.shape[2:]
        width = tokens.shape[1]
        c = self.time(waves(t, width))
        if self.label is not None:
            c = c + self.label(label)
        c = nn.functional.silu(c)[:, None]
        y, x_ = (torch.arange(size, device=x.device) for size in (rows, columns))
        places = torch.cat(torch.broadcast_tensors(waves(y, width // 2)[:, None], waves(x_, width // 2)[None]), dim=-1)
        h = tokens.flatten(2).mT + places.flatten(0, 1)
        for block in self.blocks:
            h = block(h, c)
        out = self.output(self.norm(h)).unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        return nn.functional.pixel_shuffle(out, self.patch)


def waves(numbers: Tensor, width: int) -> Tensor:
    """Sines and cosines of whole numbers [...] at width/2 frequencies: float [..., width]."""
    frequencies = 1e4 ** (-torch.arange(width // 2, device=numbers.device) / (width // 2))
    angles = numbers[..., None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
