"""A run of a checkpoint of OpenAI's improved-diffusion: a state_dict of its UNetModel (Nichol & Dhariwal 2021).

    python examples/importers/improved_diffusion.py ema.pt runs/improved --size 32 --schedule cosine --T 4000
    unstir sample runs/improved --num 16

The network is ours with other names; three things are not written the same:

    the rows of qkv are sorted by head there, each with its q, k and v; by q, k and v here, each with its heads
    1x1 convolutions of one dimension in an attention     matrices
    times are scaled to 0..1000 where T is another         a table of their cosines and sines, a row for each time

Widths are those of the tensors. Heads, schedule, T and the size of the images are in no checkpoint.
"""

import argparse
import re
from pathlib import Path

import torch

from unstir import Chain, UserError
from unstir.interop.foreign import Foreign
from unstir.interop.importing import make_run
from unstir.interop.weights import read_weights
from unstir.nn.blocks import sinusoids
from unstir.nn.config import UNetConfig
from unstir.runs.sections import DiffusionConfig

SCALED = 1000  # the times that the network is given lie below it, whatever T
KINDS = {"in_layers.0.weight": "blocks", "qkv.weight": "attentions", "op.weight": "resize", "conv.weight": "resize"}
"""What a layer is, by a tensor that it has."""
LAYERS = {
    "time_embed.0": "time.first", "time_embed.2": "time.second", "label_emb": "label",
    "input_blocks.0.0": "input_conv", "out.0": "output_norm", "out.2": "output_conv",
    "middle_block.0": "middle.blocks.0", "middle_block.1": "middle.attentions.0", "middle_block.2": "middle.blocks.1",
}  # fmt: skip
PARTS = {
    "in_layers.0": "first_norm", "in_layers.2": "first_conv", "emb_layers.1": "time", "out_layers.0": "second_norm",
    "out_layers.3": "second_conv", "skip_connection": "shortcut", "norm": "norm", "qkv": "qkv", "proj_out": "out",
    "op": "conv", "conv": "conv",
}  # fmt: skip
"""The parts of a layer, by their names there."""


def import_checkpoint(file, run, size, heads=4, schedule="linear", T=1000):
    """Make a run in a new folder of a checkpoint of images of ``size`` pixels a side; its betas end at 20 / T."""
    state, sha256 = read_weights(file)  # by a process of its own: a .pt is a pickle
    down, up = levels_of(state, "input_blocks"), levels_of(state, "output_blocks")
    network = network_of(state, down, heads, T)
    weights = weights_of(state, LAYERS | places("down", down) | places("up", up), heads)
    if network.time_table:
        times = torch.arange(T) * (SCALED / T)
        weights["time.table"] = sinusoids(times, network.channels, network.freq_shift, network.flip_sin_to_cos)
    learned = network.out_channels > 0
    betas = {"beta_1": 0.1 / T, "beta_T": 20 / T} if schedule == "linear" else {}
    model = Foreign(
        program="improved-diffusion",
        network=network,
        weights=weights,
        diffusion=DiffusionConfig(T=T, schedule=schedule, learned_variance=learned, options=betas),
        chain=Chain("ancestral", T, variance="learned" if learned else "large", clip=True),
        size=(size, size),
    )
    return make_run(model, run, str(file), sha256)


def levels_of(state, part):
    """The layers of a part level by level, each its kind and its name; a resizing ends its level."""
    rows = {tuple(map(int, found.groups())) for name in state if (found := re.match(rf"{part}\.(\d+)\.(\d+)\.", name))}
    levels = [[]]
    for row, place in sorted(rows):
        layer = f"{part}.{row}.{place}"
        for tensor, kind in KINDS.items():
            if f"{layer}.{tensor}" in state:
                levels[-1].append((kind, layer))
                if kind == "resize":
                    levels.append([])
    return levels


def network_of(state, down, heads, T):
    """The config of the network, of the widths of its tensors."""
    channels, images = state["input_blocks.0.0.weight"].shape[:2]
    widths = [len(state[f"{level[0][1]}.in_layers.2.weight"]) for level in down]
    return UNetConfig(
        in_channels=images,
        out_channels=2 * images if len(state["out.2.weight"]) == 2 * images else 0,
        channels=channels,
        mults=tuple(width // channels for width in widths),
        num_blocks=sum(kind == "blocks" for kind, _ in down[0]),
        attention=tuple(i for i, level in enumerate(down) if "attentions" in dict(level)),
        heads=heads,
        groups=32,
        norm_eps=1e-5,
        dropout=0.0,
        freq_shift=0.0,
        flip_sin_to_cos=True,
        downsample_padding=1,
        scale_shift=len(state["middle_block.0.emb_layers.1.weight"]) == 2 * widths[-1],
        time_table=0 if T == SCALED else T,
        num_classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else 0,
    )


def places(part, levels):
    """Where the layers of a part are in our network, by their names; an attention follows its block."""
    found = {}
    for i, level in enumerate(levels):
        block = -1
        for kind, layer in level:
            block += kind == "blocks"
            found[layer] = f"{part}.{i}.{kind if kind == 'resize' else f'{kind}.{block}'}"
    return found


def weights_of(state, layers, heads):
    """The weights under our names; UserError for a tensor that is not known."""
    weights = {}
    for name, tensor in state.items():
        theirs = next((each for each in layers if name.startswith(f"{each}.")), "")
        part, _, kind = name.removeprefix(f"{theirs}.").rpartition(".")
        if not theirs or (part and part not in PARTS):
            raise UserError(f"{name} has no equal here, in a checkpoint of improved-diffusion")
        ours = ".".join(filter(None, (layers[theirs], PARTS.get(part), kind)))
        if part == "qkv":
            tensor = tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        weights[ours] = tensor.squeeze(-1) if part in ("qkv", "proj_out") and kind == "weight" else tensor
    return weights


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, help="the checkpoint")
    parser.add_argument("run", type=Path, help="a new folder")
    parser.add_argument("--size", type=int, required=True, help="pixels of a side of its images")
    parser.add_argument("--heads", type=int, default=4, help="heads of each attention")
    parser.add_argument("--schedule", choices=("linear", "cosine"), default="linear")
    parser.add_argument("--T", type=int, default=1000, help="times of its process")
    print(*import_checkpoint(**vars(parser.parse_args())).lines, sep="\n")
