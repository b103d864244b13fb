"""What a store of millions of images costs: opening, the first batch, memory and images a second in random order.

    python benchmarks/big_store.py FOLDER [--images 20000 2000000] [--batch 128] [--steps 2000]

Makes synthetic stores of 32x32 colour images in FOLDER (3 KB an image), measures each in processes of its own, prints
a table and removes them. *Cold* is after the system was asked to forget the file (Linux). RSS is the process's own
memory (RssAnon) and pages of mapped files (RssFile), which the system takes back when it needs them, above what the
process had after its imports.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from unstir.data.manifest import FORMAT, MANIFEST, sealed
from unstir.data.store import arrays, content_hash

SHAPE, CLASSES = (3, 32, 32), [str(i) for i in range(10)]
BLOCK = 10_000  # images written at once


def make(folder: Path, train: int) -> None:
    """A store of ``train`` random images and a hundredth as many held out, as `pack` would lay it out."""
    folder.mkdir(parents=True)
    counts = {"train": train, "held_out": max(100, train // 100)}
    rng = np.random.default_rng(0)
    for (split, kind), array in arrays(folder, SHAPE, counts, labelled=True).items():
        with array.file.open("wb") as file:
            file.write(array.header)
            for first in range(0, counts[split], BLOCK):
                num = min(BLOCK, counts[split] - first)
                labels = (np.arange(first, first + num) % len(CLASSES)).astype("<i8")
                file.write(labels if kind == "labels" else rng.integers(0, 256, (num, *SHAPE), np.uint8))
    per_class = {split: np.bincount(np.arange(n) % len(CLASSES)).tolist() for split, n in counts.items()}
    manifest = {
        "unstir_store": FORMAT, "kind": "folder", "settings": {"size": 32, "channels": 3, "held_out": 0.01, "seed": 0},
        "source_hash": "0" * 64, "content_hash": content_hash(folder, SHAPE, CLASSES, counts), "shape": SHAPE,
        "counts": counts, "classes": CLASSES, "counts_per_class": per_class, "held_out_rule": "the last ones",
        "refused": [], "notes": [],
    }  # fmt: skip
    (folder / MANIFEST).write_bytes(sealed(manifest))


def memory() -> dict[str, int]:
    """The process's resident memory in KiB, by kind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}


def forget(folder: Path) -> None:
    """Ask the system to drop the pages of a store that it keeps in memory."""
    for file in folder.glob("*.npy"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, batch: int, steps: int) -> dict[str, float]:
    """Open a store, take a batch, then ``steps`` batches in random order."""
    import torch

    from unstir.data import Store
    from unstir.train.levers import Batches

    before, began = memory(), time.perf_counter()
    store = Store.open(folder)
    opened = time.perf_counter()
    store.verify()
    verified = time.perf_counter()
    slots, whole = torch.arange(batch), slice(None)
    batches = Batches(store, seed=0, batch_size=batch, flip=True, labels=True, device=torch.device("cpu"))
    batches(0, slots, whole)
    first, after = time.perf_counter(), memory()
    each = []
    for step in range(1, steps + 1):
        start = time.perf_counter()
        batches(step, slots, whole)
        each.append(time.perf_counter() - start)
    return {
        "open s": opened - began, "verify s": verified - opened, "first batch s": first - verified,
        "RssAnon MB": (after["RssAnon"] - before["RssAnon"]) / 1024,
        "RssFile MB": (after["RssFile"] - before["RssFile"]) / 1024,
        "images/s": batch * steps / sum(each), "slowest batch ms": 1000 * max(each),
        "RssAnon MB, then": (memory()["RssAnon"] - before["RssAnon"]) / 1024,
        "RssFile MB, then": (memory()["RssFile"] - before["RssFile"]) / 1024,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 2_000_000])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.folder, options.batch, options.steps)))
        return
    columns: dict[str, dict[str, float]] = {}
    for num in options.images:
        folder = options.folder / f"store-{num}"
        make(folder, num)
        for state in ("warm", "cold"):
            if state == "cold":
                forget(folder)
            command = [sys.executable, __file__, str(folder), "--measure"]
            command += ["--batch", str(options.batch), "--steps", str(options.steps)]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            columns[f"{num:,}, {state}"] = json.loads(found)
        shutil.rmtree(folder)
    print("| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(f"{column[row]:,.4g}" for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
