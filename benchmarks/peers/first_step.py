"""A process that imports one side, takes a training step, and ends.

    python -m peers.first_step SIDE SIZE BATCH DEVICE FOLDER

The side "torch" imports torch alone.
"""

import importlib
import sys
from dataclasses import replace
from pathlib import Path


def main(side: str, size: str, batch: str, device: str, folder: str) -> None:
    import torch

    if side != "torch":
        from peers.sizes import SIZES

        of = replace(SIZES[size], batch=int(batch))
        importlib.import_module(f"peers.{side}").first_step(of, torch.device(device), Path(folder))
    if device != "cpu":
        torch.accelerator.synchronize(torch.device(device))


if __name__ == "__main__":
    main(*sys.argv[1:])
