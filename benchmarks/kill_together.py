"""Kill or stop one process of a real shared `unstir train` at random moments, and see what becomes of it.

Usage: python benchmarks/kill_together.py [--kills 10] [--processes 2] [--signal KILL] [--length "300 steps"] [--seed 0]
                                          [--launcher torchrun]

By default one torchrun starts the processes, again too (--max-restarts). With `--launcher agents` each has a torchrun
of its own, as each machine of several has (--nnodes), and the signal goes to a torchrun and its process at once, as if
the machine went; with `--launcher none` they are started without torchrun, their places in the environment. There, what
has ended badly is started again by this program. Printed are the seconds until the others had ended, and what differs
at last from a run of as many processes that was left alone: tensors of the last checkpoint, history, lines of
metrics.jsonl without their timing fields, pictures. Exit status 1 if anything differs, or others took over 60 s.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_and_continue import command, differences
from unstir.runs.run import Run

LIMIT = 60.0
SMALL = (
    *("--train.batch_size", "15", "--log.held_out_images", "0"),
    *("--grids.num", "8", "--grids.log_spaced", "2"),
)
"""Quick steps, of a batch that two processes cannot halve."""


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Job:
    """A training that ``processes`` share, its output in a file beside its folder ``out``."""

    def __init__(self, launcher: str, processes: int, length: str, out: Path) -> None:
        self.launcher, self.processes, self.out = launcher, processes, out
        self.words = (*command(length, out), *SMALL)
        self.children = list[subprocess.Popen[bytes]]()
        self._start_all()

    def _start_all(self) -> None:
        self.port, self.began_before = free_port(), self._begun()
        self.children = [self._start(n) for n in range(1 if self.launcher == "torchrun" else self.processes)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        python, _, *words = self.words
        here, given, size = dict(os.environ), list[str](), str(self.processes)
        if self.launcher == "none":
            here |= {"RANK": str(number), "WORLD_SIZE": size, "LOCAL_RANK": str(number)}
            here |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.port}
        elif self.launcher == "agents":
            given = ["--nnodes", size, "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", self.out.name]
            given += ["--rdzv-endpoint", f"localhost:{self.port}"]
        else:
            given = ["--nproc-per-node", size]
        launcher = ["-m", "torch.distributed.run", *given, "--max-restarts", "10000"] if given else []
        with (self.out.parent / f"{self.out.name}.err").open("ab") as said:
            return subprocess.Popen(
                [python, *launcher, "-m", *words], cwd=self.out.parent, env=here, stdout=subprocess.DEVNULL, stderr=said
            )

    def _begun(self) -> int:
        """How often it has begun to train."""
        events = self.out / "events.jsonl"
        return sum(b'"processes"' in line for line in events.read_bytes().splitlines()) if events.exists() else 0

    def goes_on(self) -> bool:
        """Whether it is not yet done; what has ended badly is started again, without torchrun when all have ended."""
        ended = [child.poll() for child in self.children]
        assert 2 not in ended, f"a mistake: see {self.out}.err"
        if self.launcher == "none" and None not in ended and any(ended):
            self._start_all()
        elif self.launcher != "none":
            self.children = [self._start(n) if ended[n] else child for n, child in enumerate(self.children)]
        return any(child.poll() != 0 for child in self.children)

    def workers(self) -> list[int]:
        """The processes that train, by the order of their start; without torchrun none before they have met.

        There the others would wait for minutes for one that is killed before.
        """
        if self.launcher == "none":
            return [child.pid for child in self.children if alive(child.pid) and self._begun() > self.began_before]
        return [pid for child in self.children for pid in trainers(child.pid)]

    def struck(self, victim: int) -> list[int]:
        """What goes with a process: its own torchrun too, where it has one."""
        agents = [child.pid for child in self.children if victim in trainers(child.pid)]
        return [*(agents if self.launcher == "agents" else []), victim]


def trainers(launcher: int) -> list[int]:
    """The processes of a torchrun that train."""
    try:
        found = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        return [int(pid) for pid in found if b"unstir" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except FileNotFoundError:  # it has just ended, or one of them has
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def disturb(job: Job, number: int, chance: random.Random, most: float) -> float:
    """Send a signal to one of the processes after a random time; the seconds until the others had ended, or -1."""
    end = time.monotonic() + 120
    while len(found := job.workers()) < job.processes and job.goes_on() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(chance.uniform(0.1, 1.0) * (most if job.launcher != "none" else most / 3))  # much of it is the start
    if len(found) < job.processes or not all(map(alive, found)):
        return -1.0
    victim = chance.choice(found)
    for pid in job.struck(victim):
        os.kill(pid, number)
    began = time.monotonic()
    while any(alive(pid) for pid in found if pid != victim) and time.monotonic() < began + 2 * LIMIT:
        time.sleep(0.02)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", default="300 steps")
    parser.add_argument("--launcher", choices=("torchrun", "agents", "none"), default="torchrun")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp())).resolve()
    asked = (arguments.launcher, arguments.processes, arguments.length)
    began = time.monotonic()
    whole = Job(*asked, folder / "whole")
    while whole.goes_on():
        time.sleep(0.1)
    duration = time.monotonic() - began
    number, chance = getattr(signal, f"SIG{arguments.signal}"), random.Random(arguments.seed)
    seconds, found = list[float](), list[str]()
    for run in range(1000):  # one that ended before it was killed often enough is followed by another
        job = Job(*asked, out := folder / f"killed-{run}")
        while job.goes_on():
            time.sleep(0.1)
            if len(seconds) < arguments.kills and (took := disturb(job, number, chance, duration)) >= 0:
                seconds.append(took)
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
