"""How much memory a training step takes at its peak: ours and diffusers' UNet2DModel of the same structure.

    pip install '.[bench]'
    python benchmarks/peak_memory.py                                 # Ho et al.'s network, batch 16, float32
    python benchmarks/peak_memory.py --size tiny --batch 64
    python benchmarks/peak_memory.py --device cuda --dtype bfloat16 --batch 128

Each row is a process of its own, which takes a few steps. Counted is what it has at its peak above what it had with all
libraries loaded and nothing built: of the machine's memory on a CPU, of torch's tensors on CUDA. Neither side keeps an
average of its weights or saves a checkpoint.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from peers import machine
from peers.kept import changed
from peers.sizes import SIZES, Size
from peers.tables import table

STEPS = 3
ROWS = ("ours", "ours recomputed", "diffusers", "diffusers recomputed")
"""What is measured; "recomputed" is with activation checkpointing, of all levels in ours."""
NAMES = {"ours": "unstir", "ours recomputed": "unstir, all levels recomputed"}
GIVEN = {"ours": 0, "ours recomputed": 1, "diffusers": 0, "diffusers recomputed": 1}


def ours(size: Size, options: argparse.Namespace, folder: Path, levels: int) -> Callable[[], None]:
    """A training step of ours."""
    from PIL import Image

    from peers import ours as side

    (folder / "images").mkdir()
    for number in range(size.batch):
        Image.new("RGB", (size.side, size.side), (number % 256, 0, 0)).save(folder / f"images/{number}.png")
    config = side.settings(size, torch.device(options.device), options.dtype, ema=False)
    config = changed(config, {"train.activation_checkpointing": levels})
    store = side.store_of(folder / "images", folder / "store")
    made: list[Callable[[], None]] = []

    def step() -> None:
        if not made:
            made.append(side.trainer_of(folder / "run", store, config).take_step)
        made[0]()

    return step


def theirs(size: Size, options: argparse.Namespace, recomputed: bool) -> Callable[[], None]:
    """A training step of diffusers' network."""
    from peers import of_diffusers

    device, made = torch.device(options.device), list[Callable[[], None]]()

    def step() -> None:
        if not made:
            net = of_diffusers.network(size, device)
            if recomputed:
                net.enable_gradient_checkpointing()
            x_0, low = torch.rand(size.batch, *size.shape, device=device) * 2 - 1, options.dtype == "bfloat16"
            training = of_diffusers.Training(net, autocast=low, fused=True, ema=False)
            made.append(partial(training.step, x_0))
        made[0]()

    return step


def child(options: argparse.Namespace) -> dict[str, int]:
    """What one row takes, measured in this process."""
    from unstir.runs import resources

    size, device = replace(SIZES[options.size], batch=options.batch), torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        if options.row.startswith("ours"):
            step = ours(size, options, Path(folder), options.recomputed * len(size.mults))
        else:
            step = theirs(size, options, bool(options.recomputed))
        if device.type == "cpu":
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = resources.peak(device)
        for _ in range(STEPS):
            step()
        return {"bytes": resources.peak(device) - before}


def measured(options: argparse.Namespace, row: str) -> dict[str, int]:
    """What a row takes, in a process of its own."""
    words = [f"--{key}={getattr(options, key)}" for key in ("size", "batch", "device", "dtype")]
    command = [sys.executable, __file__, *words, f"--row={row}", f"--recomputed={GIVEN[row]}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="ho")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--recomputed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    if options.row:
        print(json.dumps(child(options)))
        return
    found = {row: measured(options, row) for row in options.rows}
    base = found.get("diffusers", {"bytes": 0})["bytes"]
    body = [
        (
            NAMES.get(row, row.replace("recomputed", "with its gradient checkpointing")),
            f"{value['bytes'] / 1e6:,.0f} MB",
            f"{value['bytes'] / base:.2f}" if base else "",
        )
        for row, value in found.items()
    ]
    for what, text in machine.described(torch.device(options.device)):
        print(f"{what}: {text}")
    size = replace(SIZES[options.size], batch=options.batch)
    print(f"\nA training step, {size}, {options.dtype}\n")
    print(table(("", "peak", "times diffusers"), body))


if __name__ == "__main__":
    main()
