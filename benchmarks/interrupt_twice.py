"""Press Ctrl-C twice at random moments of a real `unstir train` on a terminal of its own, and time how soon it ends.

Usage: python benchmarks/interrupt_twice.py [--times 20] [--seed 0] [SETTING ...], such as --train.batch_size 512

The steps take seconds: a pass through the network, one call of torch, is where a signal would wait. Printed are the
seconds from the second signal to the end of the process. Exit status 1 where one took a second or more, ended with
another status than 130, left the cursor hidden or a traceback, or a newest checkpoint that is not whole.
"""

import argparse
import os
import pty
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from unstir.runs import checkpoint

SLOW = (
    *("--model.channels", "128", "--train.batch_size", "512", "--train.compile", "no", "--train.warmup", "0 steps"),
    *("--checkpoint.every", "1 step", "--log.every", "1 step", "--log.held_out_images", "0"),
    *("--grids.num", "1", "--grids.log_spaced", "0", "--grids.steps", "1"),
)
LIMIT = 1.0


def interrupted(words: list[str], folder: Path, chance: random.Random) -> tuple[int, float, str]:
    """Exit status, seconds from the second signal to the end, and what stood on the terminal."""
    shown, terminal = pty.openpty()
    command = [sys.executable, "-m", "unstir", "train", "digits", "--out", "run", *words]
    child = subprocess.Popen(command, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.set_blocking(shown, False)
    text = b""

    def read() -> bytes:
        try:
            return os.read(shown, 1 << 16)
        except OSError:  # nothing there now, or the terminal has closed
            return b""

    def wait(seconds: float) -> None:
        nonlocal text
        until = time.monotonic() + seconds
        while time.monotonic() < until and child.poll() is None:
            text += read()
            time.sleep(0.002)

    while not list((folder / "run").glob("checkpoints/step-*")) and child.poll() is None:
        wait(0.05)
    wait(chance.uniform(0, 10))
    child.send_signal(signal.SIGINT)
    wait(chance.uniform(0.05, 0.5))
    child.send_signal(signal.SIGINT)
    began = time.monotonic()
    wait(60)
    seconds = time.monotonic() - began
    text += read()
    os.close(shown)
    return child.wait(), seconds, text.decode(errors="replace")


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("--times", type=int, default=20)
    asked.add_argument("--seed", type=int, default=0)
    given, settings = asked.parse_known_args()
    chance, all_seconds, bad = random.Random(given.seed), [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.times):
            shutil.rmtree(Path(folder, "run"), ignore_errors=True)
            status, seconds, text = interrupted([*SLOW, *settings], Path(folder), chance)
            _, damaged = checkpoint.newest(Path(folder, "run/checkpoints"))
            hidden = text.rfind("\x1b[?25l") > text.rfind("\x1b[?25h")
            bad += status != 130 or seconds >= LIMIT or hidden or "Traceback" in text or bool(damaged)
            all_seconds.append(seconds)
            print(f"{number}: status {status} after {seconds:.2f} s{', cursor hidden' * hidden}", flush=True)
    median, most = statistics.median(all_seconds), max(all_seconds)
    print(f"{len(all_seconds)} times: {median:.2f} s (median), {most:.2f} s at most; {bad} bad")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
