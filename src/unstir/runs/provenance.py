"""The machine and the software that a run was trained by: kept in its checkpoints and log."""

import platform
from typing import Any

import torch

from unstir.randomness import VERSION


def environment(device: torch.device) -> dict[str, Any]:
    """What bit-identity depends on besides the config: the torch build, the device, threads and random numbers."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "randomness": VERSION,
    }
