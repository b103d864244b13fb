"""Kill, freeze or stop one process of a real `torchrun ... unstir train` at random moments, and see what becomes of it.

Usage: python benchmarks/kill_together.py [--kills 10] [--processes 2] [--signal KILL] [--length "300 steps"] [--seed 0]

torchrun starts the processes again by itself (--max-restarts). Printed are the seconds until the others had ended, and
what differs at last from a run of as many processes that was left alone: tensors of the last checkpoint, history, lines
of metrics.jsonl without their timing fields, pictures. Exit status 1 if anything differs, or others took over 30 s.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_and_continue import command, differences
from unstir.runs.run import Run

LIMIT = 30.0
SMALL = (
    *("--train.warmup", "10 steps", "--train.batch_size", "15", "--log.held_out_images", "0"),
    *("--grids.num", "8", "--grids.log_spaced", "2"),
)
"""Quick steps, of a batch that two processes cannot halve."""


def start(processes: int, length: str, out: Path) -> subprocess.Popen[bytes]:
    python, _, *words = (*command(length, out), *SMALL)
    launcher = [python, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--max-restarts", "10000"]
    with (out.parent / f"{out.name}.err").open("ab") as said:
        return subprocess.Popen([*launcher, "-m", *words], cwd=out.parent, stdout=subprocess.DEVNULL, stderr=said)


def workers(launcher: int) -> list[int]:
    """The processes that train, by the order of their start."""
    found = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(pid) for pid in found if b"unstir" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def disturb(launcher: subprocess.Popen[bytes], count: int, number: int, chance: random.Random, most: float) -> float:
    """Send a signal to one of the processes after a random time; the seconds until the others had ended, or -1."""
    end = time.monotonic() + 120
    while len(found := workers(launcher.pid)) < count and launcher.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(chance.uniform(0.1, 1.0) * most)
    if launcher.poll() is not None or not all(map(alive, found)):
        return -1.0
    victim = chance.choice(found)
    os.kill(victim, number)
    began = time.monotonic()
    while any(alive(pid) for pid in found if pid != victim) and time.monotonic() < began + 2 * LIMIT:
        time.sleep(0.02)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--signal", choices=("KILL", "STOP", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", default="300 steps")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp())).resolve()
    began = time.monotonic()
    assert start(arguments.processes, arguments.length, folder / "whole").wait() == 0
    duration = time.monotonic() - began
    number, chance = getattr(signal, f"SIG{arguments.signal}"), random.Random(arguments.seed)
    seconds, found = list[float](), list[str]()
    for run in range(1000):  # one that ended before it was killed often enough is followed by another
        out = folder / f"killed-{run}"
        launcher = start(arguments.processes, arguments.length, out)
        while launcher.poll() is None and len(seconds) < arguments.kills:
            took = disturb(launcher, arguments.processes, number, chance, duration)
            seconds += [took] if took >= 0 else []
        assert launcher.wait() == 0
        found += differences(Run.open(folder / "whole"), Run.open(out))
        if len(seconds) >= arguments.kills:
            break
    seconds.sort()
    print(
        f"{len(seconds)} x SIG{arguments.signal} to one of {arguments.processes} processes, {run + 1} runs; the others "
        f"ended in {seconds[len(seconds) // 2]:.1f} s (median), {seconds[-1]:.1f} s at most; "
        f"differing: {found or 'nothing'}; in {folder}"
    )
    sys.exit(1 if found or seconds[-1] > LIMIT else 0)


if __name__ == "__main__":
    main()
