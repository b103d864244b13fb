"""Train the same run by one process with n threads and by n processes of one thread, in turn; compare, and explain.

Usage: python benchmarks/scaling.py [--rounds 3] [--steps 100] [--processes 2] [--folder DIR] [--forecast]

Printed are images per second (the median over the rounds of each run's median line), the efficiency, and both loss
curves side by side with their largest relative difference. Then the parts of a step of n processes are measured by
themselves: what each computes (one thread alone, 1/n of the batch and the whole of it, in CPU time, which other work of
the machine changes little), and what the gradients take to be added up (gloo, n processes, the fastest of many times).
`step_seconds` puts them together, and what it predicts is printed beside what was measured; --rounds 0 measures the
parts alone. With --forecast nothing is measured: the same formula, with published bandwidths.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from unstir.runs import build, recipes
from unstir.runs.config import Config
from unstir.runs.run import Run
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer

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
    "--train.dtype",
    "float32",
)
BUCKETS = (1 << 20, 25 << 20)  # bytes: DistributedDataParallel exchanges the first gradients and the others in these
SMALL = 2  # exchanges of a few numbers in each step: losses and figures, and the vote


class Link(NamedTuple):
    """What carries an exchange: bytes per second in one direction, and seconds until the first byte has arrived."""

    bandwidth: float
    latency: float


PUBLISHED = {
    "8 H100 of one machine, NVLink": (8, Link(370e9, 20e-6)),
    "2 machines of 8, 100 Gbit/s between them": (16, Link(12.5e9, 50e-6)),
    "2 machines of 8, 10 Gbit/s between them": (16, Link(1.25e9, 50e-6)),
}
"""Bytes per second: NVIDIA/nccl-tests issue 212 of NVLink 4 (450 GB/s on the line, 370 of them for data); a network's
are its nominal rate. The latencies are assumed; they hardly count here."""
PUBLISHED_STEP = 1 / 21  # seconds, CIFAR-10, batch 128, on 8 devices "similar to V100" (Ho et al. 2020, appendix B)


def exchange_seconds(size: float, processes: int, link: Link) -> float:
    """Seconds of adding up gradients of ``size`` bytes: a ring sends 2 (n - 1) / n of them from each process."""
    buckets = 1 + max(0, -(-(size - BUCKETS[0]) // BUCKETS[1]))
    return 2 * (processes - 1) / processes * size / link.bandwidth + (buckets + SMALL) * link.latency


def step_seconds(compute: float, exchange: float) -> tuple[float, float]:
    """(longest, shortest) seconds of a step: nothing is exchanged while something is computed, or all that can be.

    What can be is the backward pass, two thirds of the computing.
    """
    return compute + exchange, compute / 3 + max(2 / 3 * compute, exchange)


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


def compute_seconds(config: Config, batch: int, steps: int, folder: Path) -> float:
    """Seconds of CPU time that a step of ``batch`` images takes one thread of one process (the median)."""
    config = replace(config, train=replace(config.train, batch_size=batch, compile="no", dtype="float32"))
    store = open_data(config, folder / f"alone-{batch}")
    trainer = Trainer(open_run(config, folder / f"alone-{batch}", store), store)
    torch.set_num_threads(1)
    seconds = list[float]()
    for _ in range(steps):
        began = time.process_time()
        trainer.take_step()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def measured_link(size: int, processes: int, address: Path) -> tuple[Link, float]:
    """What gloo makes of ``size`` numbers of float32, and of one, between processes here; the seconds of the many."""
    children, rank = list[int](), 0
    for number in range(1, processes):
        if not (child := os.fork()):
            rank = number
            break
        children.append(child)
    dist.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=processes)
    few, many = (_fastest_all_reduce(count) for count in (1, size))
    dist.barrier()
    if rank:
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    sent = 2 * (processes - 1) / processes * 4 * size
    return Link(sent / (many - few), few), many


def _fastest_all_reduce(count: int, times: int = 200) -> float:
    numbers, seconds = torch.zeros(count), list[float]()
    for _ in range(times):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(numbers)
        seconds.append(time.perf_counter() - began)
    return min(seconds)  # of times that differ by what else the machine does


def compare(pairs: list[tuple[Run, Run]], processes: int) -> tuple[float, float]:
    """Print speeds and curves of one process and of several; (images/s alone, together)."""
    speeds = [[speed(run) for run in column] for column in zip(*pairs, strict=True)]
    alone, together = map(statistics.median, speeds)
    print(
        f"1 x {processes} threads {alone:.1f} images/s {speeds[0]}; {processes} x 1 thread {together:.1f} {speeds[1]}"
    )
    print(f"efficiency {together / alone:.2f}")
    curves = [run.metrics() for run in pairs[0]]
    worst = {key: max(abs(a[key] / b[key] - 1) for a, b in zip(*curves, strict=True)) for key in ("loss", "grad_norm")}
    for a, b in zip(*curves, strict=True):
        figures = ", ".join(f"{key} {a[key]:.7f} {b[key]:.7f}" for key in worst)
        print(f"step {a['step']:5d}  {figures}")
    print("largest relative difference:", ", ".join(f"{key} {value:.1e}" for key, value in worst.items()))
    return alone, together


def explain(processes: int, steps: int, speeds: tuple[float, float] | None, folder: Path) -> None:
    """Print the parts of a step, and the step that they predict beside the measured one."""
    config = recipes.load_recipe("digits")
    batch, size = config.train.batch_size, 4 * build.num_parameters(config)
    part, whole = (compute_seconds(config, of, steps, folder) for of in (batch // processes, batch))
    image = (whole - part) / (batch - batch // processes)
    link, seconds = measured_link(size // 4, processes, folder / "meeting")
    exchange = exchange_seconds(size, processes, link)
    print(
        f"by one thread: {1e3 * part:.1f} ms for {batch // processes} images, {1e3 * whole:.1f} ms for {batch}: "
        f"{1e3 * image:.2f} ms an image and {1e3 * (part - image * (batch // processes)):.1f} ms a step"
    )
    print(
        f"{size / 1e6:.2f} MB added up in {1e3 * seconds:.2f} ms, one number in {1e3 * link.latency:.3f} ms: "
        f"{link.bandwidth / 1e9:.2f} GB/s; {1e3 * exchange:.1f} ms a step"
    )
    longest, _ = step_seconds(part, exchange)  # all cores compute: nothing is left that could exchange meanwhile
    print(
        f"predicted: {1e3 * longest:.1f} ms a step, efficiency {whole / processes / longest:.2f} where the threads of "
        f"one process share all of its step, {part / longest:.2f} where they share the images alone"
    )
    if speeds:
        print(f"measured: {1e3 * batch / speeds[1]:.1f} ms a step, efficiency {speeds[1] / speeds[0]:.2f}")


def forecast() -> None:
    """Print what the formula gives for CIFAR-10's network where nobody has tried it."""
    size = 4 * build.num_parameters(recipes.load_recipe("cifar10"))
    print(f"{size / 1e6:.0f} MB of gradients, {1e3 * PUBLISHED_STEP:.0f} ms of computing a step")
    for name, (processes, link) in PUBLISHED.items():
        exchange = exchange_seconds(size, processes, link)
        longest, shortest = (PUBLISHED_STEP / step for step in step_seconds(PUBLISHED_STEP, exchange))
        print(f"{name}: {1e3 * exchange:.1f} ms of exchange, efficiency {longest:.2f} to {shortest:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--forecast", action="store_true")
    arguments = parser.parse_args()
    if arguments.forecast:
        forecast()
        return
    folder, num = (arguments.folder or Path(tempfile.mkdtemp())).resolve(), arguments.processes
    pairs = []
    for number in range(arguments.rounds):
        one = train(1, num, arguments.steps, folder / f"one-{number}")
        pairs.append((one, train(num, 1, arguments.steps, folder / f"several-{number}")))
    explain(num, arguments.steps, compare(pairs, num) if pairs else None, folder)


if __name__ == "__main__":
    main()
