"""Checkpoints of OpenAI's improved-diffusion: a state_dict of its UNetModel (Nichol & Dhariwal 2021).

The network is ours with other names; three things are not written the same:

    the rows of qkv are sorted by head there, each with its q, k and v; by q, k and v here, each with its heads
    1x1 convolutions of one dimension in an attention     matrices
    times are scaled to 0..1000 where T is another         a table of their sines and cosines, a row for each time

Sizes are those of the tensors. Heads, schedule, T and the size of the images are in no checkpoint. guided-diffusion
writes the same names; its blocks that resize (resblock_updown) have no equal here.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unstir.chain import Chain
from unstir.errors import UserError
from unstir.interop.foreign import Asked, Foreign, assumed, made, without_prefix
from unstir.nn.blocks import sinusoids
from unstir.nn.config import UNetConfig
from unstir.runs.sections import DiffusionConfig

MARK = "time_embed.0.weight"
"""The tensor by which such a checkpoint is known."""
GROUPS, EPS = 32, 1e-5
SCALED = 1000  # the times that a network is given lie below it, whatever T
SIDE = 16  # the largest map with attention in its recipes, from which the size of the images follows
HEADS = 4
_BLOCK = {
    "in_layers.0": "first_norm",
    "in_layers.2": "first_conv",
    "emb_layers.1": "time",
    "out_layers.0": "second_norm",
    "out_layers.3": "second_conv",
    "skip_connection": "shortcut",
}
_TOP = {
    "time_embed.0": "time.first",
    "time_embed.2": "time.second",
    "input_blocks.0.0": "input_conv",
    "out.0": "output_norm",
    "out.2": "output_conv",
}
_KINDS = {"in_layers.0.weight": "block", "qkv.weight": "attention", "op.weight": "shrink", "conv.weight": "grow"}
"""What a layer is, by a tensor that it has."""
Row = dict[str, str]  # the layers of an entry of input_blocks or output_blocks: their names by kind


def read_improved(tensors: Mapping[str, Tensor], asked: Asked, source: str) -> Foreign:
    """The model in a state_dict, of the sizes of its tensors. UserError, naming the layer, for one that is unknown.

    Raises KeyError where one is missing.
    """
    state, notes = without_prefix(tensors, MARK)
    rows = [_rows(state, part, source) for part in ("input_blocks", "output_blocks")]
    down, up = _levels(rows[0][1:], "shrink"), _levels(rows[1], "grow")
    attention = _checked(down, up[::-1], source)
    silent: dict[str, Any] = {
        "size": SIDE << min(attention, default=0),
        "heads": HEADS,
        "T": SCALED,
        "schedule": "linear",
    }
    taken = silent | asked.of_silent(source, *silent, "beta_1", "beta_T")
    T, linear = taken["T"], taken["schedule"] == "linear"
    usual = silent | ({"beta_1": 0.1 / max(T, 1), "beta_T": 20 / max(T, 1)} if linear else {})
    given = asked.of_silent(source, *usual)
    settings = usual | given
    network = _network(state, down, attention, settings, source)
    left, named = dict(state), dict[str, str]()
    weights = _weights(left, named, _places(down, up), network)
    if left:
        raise UserError(f"{source}: {min(left)} has no equal here, in a checkpoint of improved-diffusion")
    process = {key: settings[key] for key in ("schedule", "T", "beta_1", "beta_T") if key in settings}
    learned = network.out_channels > 0
    return Foreign(
        program="improved-diffusion",
        network=network,
        weights=weights,
        diffusion=made(DiffusionConfig, source, learned_variance=learned, **process),
        chain=Chain("ancestral", T, variance="learned" if learned else "large", clip=True),
        size=(settings["size"], settings["size"]),
        notes=(*notes, *assumed(usual, given)),
        named=named,
    )


def _rows(state: Mapping[str, Tensor], part: str, source: str) -> list[Row]:
    """The entries of a part in order. UserError for a layer that is not known, and an entry without any tensor."""
    found: dict[int, dict[int, Row]] = {}
    for name in state:
        if match := re.match(rf"{part}\.(\d+)\.(\d+)\.", name):
            number, layer = int(match[1]), int(match[2])
            kind = next((kind for mark, kind in _KINDS.items() if f"{match[0]}{mark}" in state), "")
            if not kind and (part, number, layer) != ("input_blocks", 0, 0):
                raise UserError(f"{source}: {name} has no equal here, in a checkpoint of improved-diffusion")
            found.setdefault(number, {}).setdefault(layer, {})[kind] = match[0][:-1]
    rows = list[Row]()
    for number in range(max(found, default=-1) + 1):
        if number not in found:
            why = "it is an average pooling (conv_resample=False), which has no equal here"
            raise UserError(f"{source}: {part}.{number} has no weights: {why}")
        layers = found[number]
        rows.append({})
        for place in sorted(layers):
            for kind, name in layers[place].items():
                if kind in rows[-1]:
                    raise UserError(f"{source}: {name} is a residual block that resizes, which has no equal here")
                rows[-1][kind] = name
    return rows


def _levels(rows: list[Row], end: str) -> list[list[Row]]:
    """The entries level by level; one with a layer of the kind ``end`` ends its level."""
    levels: list[list[Row]] = [[]]
    for row in rows:
        levels[-1].append(row)
        if end in row:
            levels.append([])
    return levels


def _checked(down: list[list[Row]], up: list[list[Row]], source: str) -> tuple[int, ...]:
    """The levels with attention, of both ways from full resolution down; UserError for what is no such network."""
    blocks = [[row for row in level if "block" in row] for level in down]
    if len(down) != len(up):
        raise UserError(
            f"{source}: input_blocks make {len(down)} levels and output_blocks {len(up)}, which has no equal here"
        )
    attention = list[int]()
    for number, (own, back) in enumerate(zip(blocks, up, strict=True)):
        if not own or len(own) != len(blocks[0]) or len(back) != len(own) + 1:
            name = back[0]["block"] if back and "block" in back[0] else "output_blocks"
            raise UserError(f"{source}: {name} begins a level of another number of blocks, which has no equal here")
        having = ["attention" in row for row in (*own, *back)]
        if any(having) and not all(having):
            row = (*own, *back)[having.index(False)]
            lacks = f"{row['block']} has no attention behind it, as others of its level have"
            raise UserError(f"{source}: {lacks}, which has no equal here")
        attention += [number] if having[0] else []
    return tuple(attention)


def _network(
    state: Mapping[str, Tensor],
    down: list[list[Row]],
    attention: tuple[int, ...],
    settings: Mapping[str, Any],
    source: str,
) -> UNetConfig:
    channels, images = state[MARK].shape[1], state["input_blocks.0.0.weight"].shape[1]
    if images not in (1, 3):
        raise UserError(
            f"{source}: input_blocks.0.0 takes {images} channels (of super-resolution?); images have 1 or 3"
        )
    widths = [len(state[f"{level[0]['block']}.in_layers.2.weight"]) for level in down]
    if widths[0] != channels:
        wide = f"{down[0][0]['block']} has {widths[0]} channels and input_blocks.0.0 {channels}"
        raise UserError(f"{source}: {wide}, which has no equal here: both must be as wide")
    return made(
        UNetConfig,
        source,
        in_channels=images,
        out_channels=2 * images if len(state["out.2.weight"]) == 2 * images else 0,
        channels=channels,
        mults=tuple(width // channels for width in widths),
        num_blocks=len([row for row in down[0] if "block" in row]),
        attention=attention,
        heads=settings["heads"],
        groups=GROUPS,
        norm_eps=EPS,
        dropout=0.0,
        freq_shift=0.0,
        flip_sin_to_cos=True,
        downsample_padding=1,
        scale_shift=len(state["middle_block.0.emb_layers.1.weight"]) == 2 * widths[-1],
        time_table=0 if settings["T"] == SCALED else settings["T"],
        num_classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else 0,
    )


def _places(down: list[list[Row]], up: list[list[Row]]) -> dict[str, str]:
    """Where each layer is in our network, by its name."""
    places = {"middle_block.0": "middle.blocks.0", "middle_block.1": "middle.attentions.0"}
    places["middle_block.2"] = "middle.blocks.1"
    for part, levels in (("down", down), ("up", up)):
        for i, level in enumerate(levels):
            for n, row in enumerate(level):
                parts = {"block": f"blocks.{n}", "attention": f"attentions.{n}"}
                places |= {name: f"{part}.{i}.{parts.get(kind, 'resize')}" for kind, name in row.items()}
    return places


def _weights(
    left: dict[str, Tensor], named: dict[str, str], places: Mapping[str, str], network: UNetConfig
) -> dict[str, Tensor]:
    """The weights under our names, taken out of ``left``; ``named`` is told whose each is."""
    weights = dict[str, Tensor]()

    def take(theirs: str, ours: str) -> None:
        for kind in ("weight", "bias"):
            named[f"{ours}.{kind}"] = f"{theirs}.{kind}"
            if f"{theirs}.{kind}" in left:
                weights[f"{ours}.{kind}"] = left.pop(f"{theirs}.{kind}")

    for theirs, ours in _TOP.items():
        take(theirs, ours)
    if network.num_classes:
        take("label_emb", "label")
    for theirs, ours in places.items():
        if ".blocks." in ours:
            for name, own in _BLOCK.items():
                take(f"{theirs}.{name}", f"{ours}.{own}")
        elif ".attentions." in ours:
            for name, own in {"norm": "norm", "qkv": "qkv", "proj_out": "out"}.items():
                take(f"{theirs}.{name}", f"{ours}.{own}")
            _as_matrices(weights, ours, network.heads)
        else:
            take(f"{theirs}.{'op' if ours.startswith('down') else 'conv'}", f"{ours}.conv")
    if network.time_table:
        times = torch.arange(network.time_table).float() * (SCALED / network.time_table)
        weights["time.table"] = sinusoids(times, network.channels, network.freq_shift, network.flip_sin_to_cos)
    return weights


def _as_matrices(weights: dict[str, Tensor], place: str, heads: int) -> None:
    """The convolutions of an attention as matrices, the rows of qkv by q, k, v and not by head."""
    for name in {f"{place}.qkv.weight", f"{place}.qkv.bias"} & weights.keys():
        rows, *inputs = weights[name].shape
        by_head = weights[name].reshape(heads, 3, rows // (3 * heads), *inputs)
        weights[name] = by_head.transpose(0, 1).reshape(rows, *inputs)
    for name in {f"{place}.qkv.weight", f"{place}.out.weight"} & weights.keys():
        weights[name] = weights[name].squeeze(-1)
