"""What decides the pixels that a run's weights make, besides what was asked of them: kept beside every image."""

import platform
from collections.abc import Sequence
from typing import Any

import torch

from unstir.randomness import VERSION
from unstir.runs import build, toml
from unstir.runs.checkpoint import Checkpoint, content_hash
from unstir.runs.run import Run, weights_of


def provenance(run: Run, used: Sequence[Checkpoint], ema: bool, device: str, dtype: str) -> dict[str, Any]:
    """Network, process, weights and machine, as JSON has them: the same, and the same chain, give the same bits.

    ``used`` are the checkpoints sampled from, a guide's behind the run's own. Raises UserError as `weights_of` does.
    """
    on, config = build.device(device), toml.to_dict(run.config)
    return {
        "shape": list(run.data.shape),
        "model": config["model"],
        "diffusion": config["diffusion"],
        "weights": weights_hash(used, ema),
        "device": on.type,
        "dtype": build.dtype_name(dtype, on),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def weights_hash(used: Sequence[Checkpoint], ema: bool) -> str:
    """The SHA-256 (hex) of the weights sampled from, and after a space that of a guide's."""
    return " ".join(content_hash(weights_of(found, ema)) for found in used)


def environment(device: torch.device) -> dict[str, Any]:
    """What bit-identity depends on besides the config: the torch build, the device, threads and random numbers."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "torch": torch.__version__,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "randomness": VERSION,
    }
