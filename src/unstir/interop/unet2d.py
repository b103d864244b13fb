"""Our U-Net as diffusers' UNet2DModel, and back: its settings and the names of its weights.

q, k and v are one matrix here and three there; every other weight is renamed, so the way there and back is exact.
"""

import re
from collections.abc import Iterable, Mapping
from functools import reduce
from math import gcd
from typing import Any

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.interop.foreign import known_setting
from unstir.nn.config import UNetConfig

_FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional", "learned"),
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
"""Settings of UNet2DModel that ours has not, with the values that mean our network; the first is its default."""
_BLOCKS = {"DownBlock2D": False, "UpBlock2D": False, "AttnDownBlock2D": True, "AttnUpBlock2D": True}
"""The blocks that are ours, and whether they have attention."""
_SAME = {"layers_per_block": "num_blocks", "norm_num_groups": "groups"} | {
    name: name for name in ("in_channels", "dropout", "norm_eps", "freq_shift", "flip_sin_to_cos", "downsample_padding")
}
"""Settings of UNet2DModel that ours has under another name or the same."""
_DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "num_class_embeds": None,
    "num_train_timesteps": None,
    "attn_norm_num_groups": None,
}
"""What UNet2DModel takes where a file leaves a setting out."""


def to_unet2d(config: UNetConfig, height: int, width: int) -> dict[str, Any]:
    """The arguments of the UNet2DModel that equals our network, for images of this size. UserError where none does."""
    for key, value, due in (("padding", config.padding, "zeros"), ("layout", config.layout, "ho")):
        if value != due:
            raise UserError(f"model.{key}", value, "has no equal in diffusers", {"to": "onnx"})
    levels = range(len(config.mults))
    heads = {config.widths[level] // config.heads_of(config.widths[level]) for level in (*config.attention, levels[-1])}
    if len(heads) > 1 and config.heads > 1:
        widths = f"makes heads of {', '.join(map(str, sorted(heads)))} channels"
        raise UserError("model.heads", config.heads, f"{widths}, and UNet2DModel has one width for all", {"to": "onnx"})
    return {
        "sample_size": height if height == width else [height, width],
        **{theirs: getattr(config, ours) for theirs, ours in _SAME.items()},
        "freq_shift": int(config.freq_shift) if config.freq_shift.is_integer() else config.freq_shift,
        "out_channels": config.out_channels or config.in_channels,
        "down_block_types": ["AttnDownBlock2D" if i in config.attention else "DownBlock2D" for i in levels],
        "up_block_types": ["AttnUpBlock2D" if i in config.attention else "UpBlock2D" for i in reversed(levels)],
        "block_out_channels": list(config.widths),
        "attention_head_dim": None if config.heads == 1 and not config.head_channels else heads.pop(),
        "num_class_embeds": config.num_classes or None,
        "time_embedding_type": "learned" if config.time_table else "positional",
        "num_train_timesteps": config.time_table or None,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "attn_norm_num_groups": config.groups if config.scale_shift else None,
    }


def from_unet2d(settings: Mapping[str, Any]) -> UNetConfig:
    """The config of our network that equals a UNet2DModel of these settings; UserError that names what it has not."""
    given = {key: allowed[0] for key, allowed in _FIXED.items()} | _DEFAULTS | dict(settings)
    for key, allowed in _FIXED.items():
        known_setting(given, key, allowed, None)
    widths, attention = list(given["block_out_channels"]), _attention(given)
    channels = widths[0] if all(width % widths[0] == 0 for width in widths) else reduce(gcd, widths)
    heads: dict[str, Any] = {}
    if (head := given["attention_head_dim"]) is not None:
        of_levels = {widths[level] // head for level in (*attention, len(widths) - 1)}
        heads = {"heads": of_levels.pop()} if len(of_levels) == 1 else {"head_channels": head}
    outputs, groups = given["out_channels"], given["norm_num_groups"]
    scale_shift = given["resnet_time_scale_shift"] == "scale_shift"
    known_setting(given, "attn_norm_num_groups", (groups,) if scale_shift else (groups, None), None)
    return UNetConfig(
        **{ours: given[theirs] for theirs, ours in _SAME.items()},
        out_channels=0 if outputs == given["in_channels"] else outputs,
        channels=channels,
        mults=tuple(width // channels for width in widths),
        attention=attention,
        time_table=given["num_train_timesteps"] or 0 if given["time_embedding_type"] == "learned" else 0,
        scale_shift=scale_shift,
        num_classes=given["num_class_embeds"] or 0,
        **heads,
    )


def _attention(given: Mapping[str, Any]) -> tuple[int, ...]:
    """The levels with attention; UserError for other blocks, or where a level has it on one way alone."""
    down, up = list(given["down_block_types"]), list(given["up_block_types"])[::-1]
    for key in ("down_block_types", "up_block_types"):
        for block in given[key]:
            known_setting({key: block}, key, _BLOCKS, block)
    levels = tuple(i for i, block in enumerate(down) if _BLOCKS[block])
    if levels != tuple(i for i, block in enumerate(up) if _BLOCKS[block]):
        raise UserError("up_block_types", tuple(up[::-1]), "must have attention at the levels of down_block_types")
    return levels


_TOP = {
    "time.first": "time_embedding.linear_1",
    "time.second": "time_embedding.linear_2",
    "label": "class_embedding",
    "input_conv": "conv_in",
    "output_norm": "conv_norm_out",
    "output_conv": "conv_out",
}
_PLACES = {"down": "down_blocks", "middle": "mid_block", "up": "up_blocks"}
_RESIZES = {"down": "downsamplers", "up": "upsamplers"}
_LEAVES = {
    "first_norm": "norm1",
    "first_conv": "conv1",
    "time": "time_emb_proj",
    "second_norm": "norm2",
    "second_conv": "conv2",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "out": "to_out.0",
}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called the parts of an attention before version 0.15, as the files of google/ddpm-* do."""


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our U-Net under diffusers' names, as copies."""
    theirs = {}
    for name, value in weights.items():
        parts = value.chunk(3) if ".qkv." in name else (value,)
        for theirs_name, part in zip(_theirs(name), parts, strict=True):
            theirs[theirs_name] = part.clone()
    return theirs


def from_diffusers(weights: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """The weights of our U-Net, named ``keys``, among diffusers' ``weights``; UserError for one missing or too many."""
    there = {_renewed(name): value for name, value in weights.items()}
    needed = {key: _theirs(key) for key in keys}
    wanted = {name for names in needed.values() for name in names}
    if wrong := sorted(wanted ^ there.keys()):
        which = "is missing" if wrong[0] in wanted else "is unknown"
        raise UserError("", wrong[0], f"{which} in the network that config.json describes")
    return {key: torch.cat([there[name] for name in names]) for key, names in needed.items()}


def _renewed(name: str) -> str:
    head, _, kind = name.rpartition(".")
    place, _, leaf = head.rpartition(".")
    return f"{place}.{_OLD[leaf]}.{kind}" if ".attentions." in name and leaf in _OLD else name


def _theirs(name: str) -> list[str]:
    """Diffusers' names of one of our weights: three where it is q, k and v in one."""
    module, kind = name.rsplit(".", 1)
    if name == "time.table":
        return ["time_proj.weight"]
    if module.endswith(".qkv"):
        place = _place(module.removesuffix(".qkv"))
        return [f"{place}.to_{letter}.{kind}" for letter in "qkv"]
    if module in _TOP:
        return [f"{_TOP[module]}.{kind}"]
    if module.endswith(".resize.conv"):
        return [f"{_place(module.removesuffix('.resize.conv'))}.{_RESIZES[module.split('.')[0]]}.0.conv.{kind}"]
    place, leaf = module.rsplit(".", 1)
    return [f"{_place(place)}.{_LEAVES[leaf]}.{kind}"]


def _place(module: str) -> str:
    first, _, rest = module.partition(".")
    inner = re.sub(r"\bblocks\b", "resnets", rest)
    return f"{_PLACES[first]}.{inner}"
