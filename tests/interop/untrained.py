"""A run that was never trained: random weights, none of them zero, so that a wrong place of any of them is seen."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from conftest import tiny_config
from unstir.interop import torch_file
from unstir.runs import build, checkpoint
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run
from unstir.runs.toml import to_dict

CLASSES = tuple(f"digit {i}" for i in range(10))


def scrambled(net, seed=0):
    """The network with weights that keep activations of order one throughout."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            std = p[0].numel() ** -0.5 if p.ndim > 1 else 0.5
            p.copy_(torch.randn(p.shape, generator=generator) * std)
    return net


def untrained(folder, shape=(1, 8, 8), **changes):
    """A run with a slim file of step 12, of the tiny config with these changes (`conftest.tiny_config`)."""
    config = tiny_config("", **changes)
    classes = CLASSES if config.model.num_classes else ()
    run = Run.begin(config, folder, DataCard(shape, classes, {"train": 1498, "held_out": 299}, "0" * 64))
    net = scrambled(build.network(config, torch.device("cpu")))
    tensors = {f"model.{name}": t for name, t in net.state_dict().items()}
    checkpoint.save(run.weights, Checkpoint(12, to_dict(config), tensors, kind="slim", ema=True, data=run.data.plain()))
    return run


def read_here(monkeypatch):
    """Files of torch.save are read in this process, which is quicker than one of its own."""

    def in_process(command, **_):
        return SimpleNamespace(returncode=torch_file.convert(*map(Path, command[-2:])), stderr=b"it was refused")

    monkeypatch.setattr("unstir.interop.weights.subprocess.run", in_process)


def saver(tmp_path, monkeypatch):
    """A fixture: (net, prefix, **changes) -> the file of its state_dict, which is read in this process."""
    read_here(monkeypatch)
    return partial(save, tmp_path / "ckpt_199_.pt")


def save(file, net, prefix="", **changes):
    """The ``file`` with the network's state_dict, its names after a prefix, and with changes; None leaves one out."""
    state = {f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()} | changes
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, file)
    return file
