"""Whether a training can fit into memory, from its settings, before anything is packed or built."""

import os
from pathlib import Path

import torch

from unstir.errors import UserError
from unstir.nn.config import ModelConfig
from unstir.runs import build
from unstir.runs.config import Config
from unstir.theory.averages import WIDTHS

FLOAT = 4  # bytes; weights and all that belongs to them are float32


def copies(config: Config) -> int:
    """Numbers that training holds for a weight: itself, its gradient, moments (one with Muon), averages and teacher."""
    train = config.train
    return 3 + (train.optimizer != "muon") + (train.ema_decay > 0) + len(WIDTHS) * train.power_ema + config.distilled


def kept_numbers(config: ModelConfig, height: int, width: int) -> int:
    """A lower bound of what the network holds for an image of this size at once: all that skips from down to up.

    Of a network that is no U-Net nothing is known but the image itself.
    """
    if not config.is_unet:
        return config.in_channels * height * width
    size, last = height * width, len(config.widths) - 1
    held = config.widths[0] * size
    for level, channels in enumerate(config.widths):
        here = size >> (2 * level)
        held += config.num_blocks * channels * here + (channels * here // 4 if level < last else 0)
    return held


def memory(device: torch.device) -> int:
    """Bytes of the device, or of what this process may use of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def check_weights(config: Config, device: torch.device) -> None:
    """Raise UserError where the weights, with all that training holds for each, exceed the memory of the device."""
    count, each, there = build.num_parameters(config), copies(config) * FLOAT, memory(device)
    if count * each > there:
        sizes = "--model.channels, --model.mults or --model.num_blocks" if config.model.is_unet else "its model.options"
        raise UserError(
            f"[model] has {count:,} parameters, which take {_gb(count * each)} in training ({each} bytes each), more "
            f"than the {_gb(there)} of {device}; lower {sizes}"
        )


def check_images(config: Config, height: int, width: int, device: torch.device) -> None:
    """Raise UserError where the images that are computed at once exceed the memory of the device."""
    there = memory(device)
    each = kept_numbers(config.model, height, width) * build.dtype(config.train.dtype, device).itemsize
    at_once = config.train.micro_batch or config.train.batch_size, "set --train.micro_batch to fewer"
    for key, (number, remedy) in {"train.batch_size": at_once, "grids.num": (config.grids.num, "lower it")}.items():
        if number * each > there:
            take = f"images of {height}x{width} at once take at least {_gb(number * each)}"
            raise UserError(f"{key}={number} {take}, more than the {_gb(there)} of {device}; {remedy}")


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
