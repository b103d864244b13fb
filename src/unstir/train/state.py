"""Everything training holds between two steps, and its way into a checkpoint and back."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unstir.diffusion.importance import LossHistory
from unstir.nn.unet import UNet
from unstir.randomness import VERSION
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import Config
from unstir.runs.sections import TrainConfig
from unstir.runs.toml import to_dict

WINDOW = ("steps", "loss", "mse", "bits", "grad_norm", "clipped")
COUNTERS = ("skipped", "skipped_in_a_row")


@dataclass
class State:
    """The mutable whole: weights, averages, moments, and the running figures, all on the training device.

    ``step`` counts optimiser steps taken. ``window`` holds sums since the last log line, by `WINDOW`: steps with finite
    gradients, then the loss, squared error, bound in bits, gradient norm and clipped steps among them. ``counters``,
    by `COUNTERS`, count steps skipped for a gradient that was not finite. ``history`` is what an importance sampler of
    times has seen. ``seconds`` is the time spent training so far.
    """

    net: UNet
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    window: Tensor
    counters: Tensor
    history: LossHistory | None = None
    step: int = 0
    seconds: float = 0.0

    @property
    def sampling_net(self) -> nn.Module:
        """The network that grids and slim files are made from: the average where there is one."""
        return self.net if self.average is None else self.average

    def to_checkpoint(self, config: Config) -> Checkpoint:
        """A full checkpoint of this moment."""
        tensors = {f"model.{name}": t for name, t in self.net.state_dict().items()}
        if self.average is not None:
            tensors |= {f"ema.{name}": t for name, t in self.average.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = value
        if self.history is not None:
            tensors |= {"times.losses": self.history.losses, "times.counts": self.history.counts}
        history = {
            "window": dict(zip(WINDOW, self.window.tolist(), strict=True)),
            "counters": self.counters.tolist(),
            "seconds": self.seconds,
        }
        return Checkpoint(self.step, to_dict(config), tensors, history, environment=environment(self.window.device))

    def to_slim(self, config: Config) -> Checkpoint:
        """The weights to sample from, alone."""
        tensors = {f"model.{name}": t for name, t in self.sampling_net.state_dict().items()}
        return Checkpoint(self.step, to_dict(config), tensors, kind="slim", ema=self.average is not None)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take initial weights from elsewhere."""
        self.net.load_state_dict(dict(weights))
        if self.average is not None:
            self.average.load_state_dict(self.net.state_dict())

    def restore(self, saved: Checkpoint) -> None:
        """Become what was saved, bit for bit."""
        self.step = saved.step
        self.seconds = float(saved.state["seconds"])
        self.window.copy_(torch.tensor([saved.state["window"][name] for name in WINDOW], dtype=self.window.dtype))
        self.counters.copy_(torch.tensor(saved.state["counters"], dtype=self.counters.dtype))
        self.net.load_state_dict(saved.part("model"))
        if self.average is not None:
            self.average.load_state_dict(saved.part("ema"))
        if self.history is not None:
            times = saved.part("times")
            self.history.losses.copy_(times["losses"])
            self.history.counts.copy_(times["counts"])
        self.optimizer.state.clear()
        for name, parameter in self.net.named_parameters():
            moments = saved.part(f"optimizer.{name}")
            if moments:
                self.optimizer.state[parameter] = {key: t.to(parameter.device) for key, t in moments.items()}


def figures(n: int, device: torch.device) -> Tensor:
    """n running figures at zero: float64, or float32 on MPS, which has no float64."""
    return torch.zeros(n, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW, fused: one kernel for all parameters, which can skip a step without being waited for."""
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        net.parameters(),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def environment(device: torch.device) -> dict[str, Any]:
    """What bit-identity depends on besides the config: the torch build, the device, threads and random numbers."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "randomness": VERSION,
    }
