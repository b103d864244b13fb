"""Names of weights: of our U-Net and of diffusers' UNet2DModel, whose structure is the same.

q, k and v are one matrix here and three there; everything else is a renaming, so that the way there and back gives the
same bits.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

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
        for theirs_name, part in zip(theirs_of(name), parts, strict=True):
            theirs[theirs_name] = part.clone()
    return theirs


def from_diffusers(weights: Mapping[str, Tensor], own: Iterable[str]) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The weights of our U-Net, whose names are ``own``, among diffusers' ``weights``, under their new names or old.

    Also, in diffusers' names: what our network needs and they lack, and what they have and it does not need.
    """
    there, ours = {_renewed(name): value for name, value in weights.items()}, dict[str, Tensor]()
    needed = {name: theirs_of(name) for name in own}
    for name, theirs in needed.items():
        parts = [there[each] for each in theirs if each in there]
        if len(parts) == len(theirs):
            ours[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    wanted = {each for theirs in needed.values() for each in theirs}
    return ours, sorted(wanted - there.keys()), sorted(there.keys() - wanted)


def _renewed(name: str) -> str:
    """A name of diffusers as it is today."""
    head, _, kind = name.rpartition(".")
    place, _, leaf = head.rpartition(".")
    return f"{place}.{_OLD[leaf]}.{kind}" if ".attentions." in name and leaf in _OLD else name


def theirs_of(name: str) -> list[str]:
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
    """Diffusers' name of one of our blocks, attentions or levels."""
    first, _, rest = module.partition(".")
    inner = re.sub(r"\bblocks\b", "resnets", rest)
    return f"{_PLACES[first]}.{inner}"
