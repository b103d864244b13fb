"""Names of weights, ours and diffusers', and the diffusers network that equals a `UNetConfig`."""

import re
import warnings

import torch
from torch import Tensor, nn

from unstir.nn.config import UNetConfig

_PLACES = ((r"down\.", "down_blocks."), (r"middle\.", "mid_block."), (r"up\.", "up_blocks."))
_TOP = {
    "time.first": "time_embedding.linear_1",
    "time.second": "time_embedding.linear_2",
    "label": "class_embedding",
    "input_conv": "conv_in",
    "output_norm": "conv_norm_out",
    "output_conv": "conv_out",
}
_BLOCK = {
    "first_norm": "norm1",
    "first_conv": "conv1",
    "time": "time_emb_proj",
    "second_norm": "norm2",
    "second_conv": "conv2",
    "shortcut": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "out": "to_out.0"}


def theirs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under diffusers' names."""
    out = {}
    for name, value in state.items():
        module, kind = name.rsplit(".", 1)
        if module.endswith(".qkv"):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                out[f"{_module(module.removesuffix('.qkv'))}.to_{letter}.{kind}"] = part
        else:
            out[f"{_module(module)}.{kind}"] = value
    return out


def ours(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """A state dict of diffusers under our names, for a network of ours of the same shape."""
    out = {}
    for name in net.state_dict():
        module, kind = name.rsplit(".", 1)
        if module.endswith(".qkv"):
            base = _module(module.removesuffix(".qkv"))
            out[name] = torch.cat([state[f"{base}.to_{letter}.{kind}"] for letter in "qkv"])
        else:
            out[name] = state[f"{_module(module)}.{kind}"]
    return out


def _module(name: str) -> str:
    """Diffusers' name of one of our modules."""
    if name in _TOP:
        return _TOP[name]
    for pattern, replacement in _PLACES:
        name = re.sub("^" + pattern, replacement, name)
    name = name.replace(".blocks.", ".resnets.")
    if name.endswith(".resize.conv"):
        kind = "downsamplers" if name.startswith("down") else "upsamplers"
        return name.replace(".resize.conv", f".{kind}.0.conv")
    head, leaf = name.rsplit(".", 1)
    if ".resnets." in name:
        return f"{head}.{_BLOCK[leaf]}"
    return f"{head}.{_ATTENTION[leaf]}" if leaf in _ATTENTION else name


def peer(config: UNetConfig) -> nn.Module:
    """Diffusers' UNet2DModel of the same shape. With several heads all attention must have the same width."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what diffusers itself imports
        warnings.simplefilter("ignore", FutureWarning)
        from diffusers import UNet2DModel
    levels = range(len(config.mults))
    return UNet2DModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels or config.in_channels,
        freq_shift=config.freq_shift,
        flip_sin_to_cos=config.flip_sin_to_cos,
        down_block_types=tuple("AttnDownBlock2D" if i in config.attention else "DownBlock2D" for i in levels),
        up_block_types=tuple("AttnUpBlock2D" if i in config.attention else "UpBlock2D" for i in reversed(levels)),
        block_out_channels=config.widths,
        layers_per_block=config.num_blocks,
        downsample_padding=config.downsample_padding,
        dropout=config.dropout,
        attention_head_dim=None if config.heads == 1 else config.widths[-1] // config.heads,
        norm_num_groups=config.groups,
        norm_eps=config.norm_eps,
        num_class_embeds=config.num_classes or None,
    )
