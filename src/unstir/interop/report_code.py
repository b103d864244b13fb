"""Checkpoints of the code that the course report is built on: a plain state_dict of its network.

The first network is Ho et al.'s with other names and a table of times, which is kept as it is. The second, by class, is
`layout="report_guided"`; three of its parts are sums that are written as one:

    the 3x3 and the 5x5 convolution that shrink a level    one 5x5 convolution, for they are centred alike
    the projections of time and label in a block           one projection of both, side by side
    the perceptron behind the table of labels              its values; label 0, which says nothing, is the last one here
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.errors import UserError
from unstir.interop.foreign import Asked, Foreign, located
from unstir.interop.weights import read_weights
from unstir.nn.config import UNetConfig
from unstir.runs import checkpoint
from unstir.runs.sections import DiffusionConfig

# In the name of an average of weights, such as "modelEMA", and not in "remapped".
_AVERAGE = re.compile("(?<![a-z])ema|ema(?![a-z])|averag|avg", re.IGNORECASE)
_SHOWN = 3
_MARK = "time_embedding.timembedding.0.weight"
"""The tensor by which such a checkpoint is known."""
_GROUPS, _EPS, _DROPOUT = 32, 1e-5, 0.15  # fixed in its code, or known from its settings alone
_SIZE = 32
_SECOND = {"beta_T": 0.028, "guidance": 2.8}  # of its run by class: w = 1.8 is a scale of 2.8
_BLOCK = {
    "block1.0": "first_norm",
    "block1.2": "first_conv",
    "temb_proj.1": "time",
    "block2.0": "second_norm",
    "block2.3": "second_conv",
    "shortcut": "shortcut",
}
_TOP = {
    "time_embedding.timembedding.1": "time.first",
    "time_embedding.timembedding.3": "time.second",
    "head": "input_conv",
    "tail.0": "output_norm",
    "tail.2": "output_conv",
}
_LABELS = "cond_embedding.condEmbedding"


def read_file(file: Path, asked: Asked) -> tuple[Foreign, str]:
    """The model in a file, and the SHA-256 (hex) of the file. UserError where it is of no program known here."""
    tensors, sha256 = read_weights(file)
    if not any(name == _MARK or name.endswith(f".{_MARK}") for name in tensors):
        raise UserError("", file, *_refusal(tensors, file))
    state, notes = _without_prefix(tensors)
    by_class = f"{_LABELS}.0.weight" in state
    usual = {"size": _SIZE, "beta_1": 1e-4, "beta_T": _SECOND["beta_T"] if by_class else 0.02}
    given = asked.of_silent(*usual)
    with located(file):
        network, places = _network(state, by_class)
        weights = _weights(state, places, by_class)
    size, beta_1, beta_T = (usual | given).values()
    rest = ", ".join(f"{key}={value:g}" for key, value in usual.items() if key not in given)
    taken = (f"a checkpoint does not say everything; taken were {rest}",) if rest else ()
    T = network.time_table
    chain = Chain("ancestral", T, variance="large", clip=False, guidance=_SECOND["guidance"] if by_class else 1.0)
    return Foreign(
        program="code of the report",
        network=network,
        weights=weights,
        diffusion=DiffusionConfig(T=T, options={"beta_1": beta_1, "beta_T": beta_T}),
        chain=chain,
        size=(size, size),
        has_null=by_class,
        notes=(*notes, *taken, *_unnamed(tensors)),
    ), sha256


def _without_prefix(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under the prefix that `_MARK` has ("module.", "model."), without it, and a note where it is chosen.

    Of several, the one that speaks most of an average: ema_pytorch has "ema.online_model." and "ema.ema_model.".
    """
    prefixes = [name.removesuffix(_MARK) for name in tensors if name.endswith(_MARK)]
    chosen = max(prefixes, key=lambda prefix: sum(bool(_AVERAGE.search(part)) for part in prefix.split(".")))
    state = {name.removeprefix(chosen): t for name, t in tensors.items() if name.startswith(chosen)}
    others = [prefix.rstrip(".") or "those without a prefix" for prefix in prefixes if prefix != chosen]
    if not others:
        return state, ()
    return state, (f"of its {len(prefixes)} sets of weights, {chosen.rstrip('.')} was taken, not {', '.join(others)}",)


def _refusal(tensors: Mapping[str, Tensor], file: Path) -> tuple[str, str]:
    if "conv_in.weight" in tensors:
        return "is of diffusers, whose settings lie beside it", "name the folder that has its config.json"
    if file.suffix == ".safetensors" and checkpoint.is_ours(file):
        return "is unstir's own and needs no import", "name the run that it was saved by"
    some = ", ".join(sorted(tensors)[:_SHOWN])
    return f"holds {len(tensors)} tensors ({some}, ...) of no program known here", "docs/interop.md lists them"


def _unnamed(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A note on lists of tensors beside the weights, in which torch_ema keeps their average."""
    parts = (name.rpartition(".") for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim)
    lists = ", ".join(sorted({table for table, _, last in parts if last.isdecimal()})[:_SHOWN])
    average = "if they are an average of the weights, put it into the network and save its state_dict"
    return (f"tensors without names were left out, in {lists}; {average}",) if lists else ()


def _weights(state: Mapping[str, Tensor], places: Mapping[str, str], by_class: bool) -> dict[str, Tensor]:
    left = dict(state)
    weights = {"time.table": left.pop(_MARK)}
    for theirs, ours in _TOP.items():
        weights |= _taken(left, theirs, ours)
    for theirs, ours in places.items():
        weights |= _block(left, theirs, ours) if ".blocks." in ours else _resize(left, theirs, f"{ours}.resize")
    if by_class:
        weights["label.weight"] = _labels(left)
    if left:
        raise UserError("", sorted(left)[0], "is unknown in a checkpoint of the report's code")
    return weights


def _network(state: Mapping[str, Tensor], by_class: bool) -> tuple[UNetConfig, dict[str, str]]:
    """The config of the network, and where each of its blocks and resizings is in ours."""
    channels = state["head.weight"].shape[0]
    down, up = (_levels(state, part) for part in ("downblocks", "upblocks"))
    widths = [state[f"{level[0]}.block1.2.weight"].shape[0] for level in down]
    attention = tuple(i for i, level in enumerate(down) if f"{level[0]}.attn.proj_q.weight" in state)
    network = UNetConfig(
        in_channels=state["head.weight"].shape[1],
        out_channels=0,
        channels=channels,
        mults=tuple(width // channels for width in widths),
        num_blocks=len([name for name in down[0] if f"{name}.block1.2.weight" in state]),
        attention=attention,
        groups=_GROUPS,
        norm_eps=_EPS,
        dropout=_DROPOUT,
        freq_shift=0.0,
        downsample_padding=1,
        time_table=len(state[_MARK]),
        num_classes=len(state[f"{_LABELS}.0.weight"]) if by_class else 0,
        layout="report_guided" if by_class else "ho",
    )
    places = {f"middleblocks.{i}": f"middle.blocks.{i}" for i in range(2)}
    for ours, levels in (("down", down), ("up", up)):
        for i, level in enumerate(levels):
            blocks = [name for name in level if f"{name}.block1.2.weight" in state]
            places |= {name: f"{ours}.{i}.blocks.{n}" for n, name in enumerate(blocks)}
            places |= {name: f"{ours}.{i}" for name in level if name not in blocks}
    return network, places


def _levels(state: Mapping[str, Tensor], part: str) -> list[list[str]]:
    """The names of the layers of a way, level by level; a resizing ends its level."""
    numbers = sorted({int(match[1]) for name in state if (match := re.match(rf"{part}\.(\d+)\.", name))})
    levels: list[list[str]] = [[]]
    for number in numbers:
        levels[-1].append(f"{part}.{number}")
        if f"{part}.{number}.block1.2.weight" not in state:
            levels.append([])
    if not all(levels) or numbers != list(range(len(numbers))):
        raise UserError("", part, "is no row of blocks and resizings, level by level")
    return levels


def _taken(left: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """Those of weight and bias of a layer that are in ``left``, taken out of it, under our name."""
    return {f"{ours}.{kind}": left.pop(f"{theirs}.{kind}") for kind in ("weight", "bias") if f"{theirs}.{kind}" in left}


def _block(left: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    weights = dict[str, Tensor]()
    for name, leaf in _BLOCK.items():
        weights |= _taken(left, f"{theirs}.{name}", f"{ours}.{leaf}")
    label = _taken(left, f"{theirs}.cond_proj.1", "label")
    if label:
        weights[f"{ours}.time.weight"] = torch.cat((weights[f"{ours}.time.weight"], label["label.weight"]), dim=1)
        weights[f"{ours}.time.bias"] = weights[f"{ours}.time.bias"] + label["label.bias"]
    if f"{theirs}.attn.proj_q.weight" in left:
        place = ours.replace(".blocks.", ".attentions.")
        parts = [_taken(left, f"{theirs}.attn.proj_{letter}", letter) for letter in "qkv"]
        for kind in ("weight", "bias"):
            joined = torch.cat([part[f"{letter}.{kind}"] for letter, part in zip("qkv", parts, strict=True)])
            weights[f"{place}.qkv.{kind}"] = joined.flatten(1) if kind == "weight" else joined
        weights |= _taken(left, f"{theirs}.attn.group_norm", f"{place}.norm")
        out = _taken(left, f"{theirs}.attn.proj", f"{place}.out")
        weights |= {name: t.flatten(1) if t.ndim > 1 else t for name, t in out.items()}
    return weights


def _resize(left: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """What ends a level: main, c1 and c2 in one, or t and c."""
    if f"{theirs}.c1.weight" in left:
        small, large = (_taken(left, f"{theirs}.{name}", "conv") for name in ("c1", "c2"))
        weight = large["conv.weight"] + torch.nn.functional.pad(small["conv.weight"], (1, 1, 1, 1))
        return {f"{ours}.conv.weight": weight, f"{ours}.conv.bias": small["conv.bias"] + large["conv.bias"]}
    weights = dict[str, Tensor]()
    for name, leaf in {"main": "conv", "c": "conv", "t": "spread"}.items():
        weights |= _taken(left, f"{theirs}.{name}", f"{ours}.{leaf}")
    return weights


def _labels(left: dict[str, Tensor]) -> Tensor:
    """What the perceptron says of each label, [labels, D], the one that says nothing last."""
    table = left.pop(f"{_LABELS}.0.weight").double()
    for layer in (1, 3):
        part = _taken(left, f"{_LABELS}.{layer}", "layer")
        table = table if layer == 1 else torch.nn.functional.silu(table)
        table = torch.nn.functional.linear(table, part["layer.weight"].double(), part["layer.bias"].double())
    return torch.cat((table[1:], table[:1])).float()
