"""Kill a real `unstir train` with SIGKILL at random moments, continue it, and compare with a run never interrupted.

Usage: python benchmarks/kill_and_continue.py [--kills 10] [--seed 0] [--length "300 steps"] [--folder DIR]

Both runs use the recipe `digits`, shortened and without its warm-up. Compared bit for bit: every tensor of the last
checkpoint (weights, averages, optimiser state), its history, each line of metrics.jsonl without its timing fields, and
every picture. Exit status 1 if anything differs.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.train.record import VARYING


def command(length: str, out: Path) -> list[str]:
    options = ["--train.length", length, "--train.warmup", "0 steps", "--checkpoint.every", "50 steps"]
    options += ["--log.every", "20 steps", "--out", str(out)]
    return [sys.executable, "-m", "unstir", "train", "digits", *options]


def start(length: str, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(length, out), cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def differences(ours: Run, theirs: Run) -> list[str]:
    a, b = (checkpoint.newest(run.checkpoints)[0] for run in (ours, theirs))
    assert a is not None and b is not None
    found = [name for name in {*a.tensors, *b.tensors} if not _equal(a.tensors.get(name), b.tensors.get(name))]
    found += [key for key in a.state if key != "seconds" and a.state[key] != b.state[key]]
    lines = [[{k: v for k, v in line.items() if k not in VARYING} for line in run.metrics()] for run in (ours, theirs)]
    found += ["metrics"] if lines[0] != lines[1] else []
    names = {path.name for run in (ours, theirs) for path in run.samples.iterdir()}
    return found + [name for name in names if _pixels(ours.samples / name) != _pixels(theirs.samples / name)]


def _pixels(path: Path) -> bytes:
    """Those of a picture, whose file names its run too."""
    with Image.open(path) as picture:
        return picture.tobytes()


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", default="300 steps")
    parser.add_argument("--folder", type=Path, default=None)
    return parser.parse_args(arguments)


def main() -> None:
    arguments = parsed()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    began = time.monotonic()
    assert start(arguments.length, folder / "whole").wait() == 0
    duration = time.monotonic() - began
    chance, moments, found = random.Random(arguments.seed), [], []
    # a run that ended before it could be killed often enough is followed by another
    while len(moments) < arguments.kills:
        out = folder / f"killed-{len(moments)}"
        moments += kill_until_finished(arguments.length, out, chance, duration, arguments.kills - len(moments))
        found += differences(Run.open(folder / "whole"), Run.open(out))
    print(f"{len(moments)} kills, continuing from steps {moments}; differing: {found or 'nothing'}; runs in {folder}")
    sys.exit(1 if found else 0)


def kill_until_finished(length: str, out: Path, chance: random.Random, duration: float, most: int) -> list[int]:
    """Start the run and kill it, up to ``most`` times; let it finish; return the saved step after each kill."""
    moments: list[int] = []
    while len(moments) < most:
        child = start(length, out)
        try:
            child.wait(timeout=chance.uniform(0.1, 0.5) * duration)
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        saved = checkpoint.listed(out / "checkpoints")
        moments.append(saved[-1][0] if saved else 0)
    assert start(length, out).wait() == 0
    return moments


if __name__ == "__main__":
    main()
