"""Kill a real `unstir sample` with SIGKILL at random moments, run it again, and compare with a job never interrupted.

Usage: python benchmarks/kill_sampling.py RUN [--num 50000] [--kills 6] [--seed 0] [--folder DIR] [-- OPTIONS]

OPTIONS are those of `unstir sample`, by default --sampler ddim --steps 2 --batch-size 500. Compared: that the images
are exactly as many as asked, that nothing half written stays, and every file by its hash. The start of a job with all
its images there is timed beside that of a job of one. Exit status 1 if anything differs.
"""

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIONS = ["--sampler", "ddim", "--steps", "2", "--batch-size", "500"]


def start(run: Path, num: int, out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "unstir", "sample", str(run), "--num", str(num), "--out", str(out), *options]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(run: Path, num: int, out: Path, options: list[str]) -> float:
    """The seconds that the whole command takes."""
    began = time.monotonic()
    assert start(run, num, out, options).wait() == 0
    return time.monotonic() - began


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def images(folder: Path) -> int:
    return sum(path.suffix == ".png" and path.stem.isdecimal() for path in folder.iterdir()) if folder.exists() else 0


def kill_until_finished(
    run: Path, num: int, out: Path, options: list[str], chance: random.Random, mean: float, most: int
) -> list[int]:
    """Start the job and kill it, up to ``most`` times; let it finish; return the images there after each kill."""
    there: list[int] = []
    while len(there) < most:
        child = start(run, num, out, options)
        try:
            child.wait(timeout=chance.uniform(0.1, 1.9) * mean)
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        there.append(images(out))
    assert start(run, num, out, options).wait() == 0
    return there


def differences(ours: dict[str, str], theirs: dict[str, str], num: int) -> list[str]:
    """The names of files that differ, are half written, or are too many or too few."""
    expected = {f"{index:06d}.png" for index in range(num)} | {"grid.png", "noise.png", "settings.json"}
    return sorted(
        {name for name in {*ours, *theirs, *expected} if ours.get(name) != theirs.get(name)} | (expected ^ {*ours})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--num", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("options", nargs="*", default=OPTIONS)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp())
    duration = timed(asked.run, asked.num, folder / "whole", asked.options)
    whole, chance = hashes(folder / "whole"), random.Random(asked.seed)
    there: list[int] = []
    found: list[str] = []
    while len(there) < asked.kills:  # a job that ended before it could be killed often enough is followed by another
        out, left = folder / f"killed-{len(there)}", asked.kills - len(there)
        there += kill_until_finished(asked.run, asked.num, out, asked.options, chance, duration / (left + 1), left)
        found += differences(hashes(out), whole, asked.num)
    print(f"{len(there)} kills of a job of {asked.num} images that takes {duration:.0f} s, with {there} images there")
    again, one = (
        timed(asked.run, num, folder / name, asked.options) for num, name in ((asked.num, "whole"), (1, "one"))
    )
    print(f"the command takes {again:.1f} s with all images there, {one:.1f} s for a job of one image")
    print(f"differing: {found[:10] or 'nothing'}; {len(whole)} files in {folder}/whole")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
