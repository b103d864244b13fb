"""Train the same run by one process with two threads and by two processes of one thread, in turn, and compare both.

Usage: python benchmarks/scaling.py [--rounds 3] [--steps 100] [--processes 2] [--folder DIR]

Printed are images per second (the median over the rounds of each run's median line), the efficiency, both loss curves
side by side with their largest relative difference, and the rate at which gloo adds up a gradient of this size.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from unstir.runs import build
from unstir.runs.run import Run

OPTIONS = (
    "--train.warmup",
    "10 steps",
    "--log.every",
    "10 steps",
    "--log.held_out_images",
    "0",
    "--grids.log_spaced",
    "1",
    "--train.compile",
    "no",
)


def train(processes: int, threads: int, steps: int, out: Path) -> Run:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    words = ["-m", "unstir", "train", "digits", "--train.length", f"{steps} steps", *OPTIONS, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(
        [sys.executable, *launcher, *words], cwd=out.parent, env=environment, check=True, capture_output=True
    )
    return Run.open(out)


def speed(run: Run) -> float:
    """Images per second: the median of the lines, without the first, which begins cold."""
    return statistics.median(line["images_per_second"] for line in run.metrics()[1:])


def exchange(size: int, address: Path) -> float:
    """Seconds in which two processes add up ``size`` numbers of float32 by gloo: the median of 20."""
    child = os.fork()
    dist.init_process_group("gloo", init_method=f"file://{address}", rank=int(child == 0), world_size=2)
    numbers, seconds = torch.zeros(size), list[float]()
    for _ in range(20):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(numbers)
        seconds.append(time.perf_counter() - began)
    dist.barrier()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    folder, num = (arguments.folder or Path(tempfile.mkdtemp())).resolve(), arguments.processes
    pairs = []
    for number in range(arguments.rounds):
        one = train(1, num, arguments.steps, folder / f"one-{number}")
        pairs.append((one, train(num, 1, arguments.steps, folder / f"several-{number}")))
    speeds = [[speed(run) for run in column] for column in zip(*pairs, strict=True)]
    alone, together = map(statistics.median, speeds)
    print(f"1 x {num} threads {alone:.1f} images/s {speeds[0]}; {num} x 1 thread {together:.1f} {speeds[1]}")
    print(f"efficiency {together / alone:.2f}")
    curves = [run.metrics() for run in pairs[0]]
    worst = {key: max(abs(a[key] / b[key] - 1) for a, b in zip(*curves, strict=True)) for key in ("loss", "grad_norm")}
    for a, b in zip(*curves, strict=True):
        figures = ", ".join(f"{key} {a[key]:.7f} {b[key]:.7f}" for key in worst)
        print(f"step {a['step']:5d}  {figures}")
    print("largest relative difference:", ", ".join(f"{key} {value:.1e}" for key, value in worst.items()))
    size = sum(p.numel() for p in build.network(pairs[0][0].config, torch.device("cpu")).parameters())
    seconds = exchange(size, folder / "meeting")
    rate = 4e-9 * size / seconds
    print(f"{size} parameters: {4 * size / 1e6:.1f} MB added up in {1e3 * seconds:.1f} ms, {rate:.2f} GB/s")


if __name__ == "__main__":
    main()
