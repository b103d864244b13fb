"""Whether two checkouts compute the same: train, sample, edit, evaluate and report with both, and compare the files.

Usage: python benchmarks/same_results.py OLD NEW [--keep FOLDER]

Each command runs in a folder of its own for each checkout, from the runs that the checkout trains itself (digits, and
digits with classes and label dropout), so that a format that changed does not matter. Pictures and packed images are
compared pixel by pixel, weights tensor by tensor, logs and JSON value by value, without times of day, seconds,
versions, paths and hashes of whole files. What differs is printed, a line each. Status 1 if anything did.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence
from safetensors.numpy import load_file

from unstir.chain import SAMPLERS

SMALL = [
    "--train.length", "60 steps", "--train.warmup", "10 steps",
    "--log.every", "5 steps", "--grids.num", "16", "--grids.log_spaced", "3",
]  # fmt: skip
GUIDED = ["--model.num_classes", "10", "--train.condition_dropout", "0.2", "--train.micro_batch", "32"]
CHAIN = ["--steps", "7", "--num", "8", "--seed", "3"]
UNLIKE = re.compile(
    r"seconds|second|time|_at$|date|version|commit|path|host|machine|device|threads|sha256|hash|created|torch|python|format|pid|crc32"
)
"""Keys of JSON whose values are of the moment, the place or the tree."""

DIGEST, SHOWN = re.compile(r"-(?=[a-f]*[0-9])[0-9a-f]{6}(?:[0-9a-f]{2})?(?=[-/.])"), 4
"""A hash of settings in a name; the differences that are shown of a file."""


def commands() -> Iterator[list[str]]:
    """What is run in each checkout, in order."""
    yield ["train", "digits", "--out", "run", *SMALL]
    yield ["train", "digits", "--out", "guided", *SMALL, *GUIDED]
    yield ["train", "--out", "run", "--train.length", "90 steps", "--train.lr_period", "80 steps"]
    for sampler in SAMPLERS:
        yield ["sample", "run", "--num", "8", "--sampler", sampler, "--steps", "6", "--out", f"by/{sampler}"]
    yield ["sample", "guided", *CHAIN, "--guidance", "2", "--label", "3", "--out", "by/label"]
    yield ["sample", "guided", *CHAIN, "--guidance", "2", "--guide", "run", "--out", "by/guide"]
    yield ["sample", "guided", *CHAIN, "--spacing", "log_snr", "--threshold", "0.9", "--out", "by/threshold"]
    yield ["sample", "run", *CHAIN, "--dtype", "bfloat16", "--no-ema", "--out", "by/bfloat16"]
    yield ["sample", "run", *CHAIN, "--animate", "moving.webp", "--strip", "strip.png", "--out", "by/strip"]
    compared = "ancestral:20,ddim:5,heun:5,dpmpp_2m:6:log_snr"
    yield ["sample", "run", "--num", "8", "--compare", compared, "--out", "compared"]
    digit = "by/ddim/000000.png"
    yield ["edit", "inpaint", "run", digit, "--box", "0", "4", "8", "4", "--steps", "5", "--out", "inpaint.png"]
    yield ["edit", "vary", "run", digit, "--strength", "0.5", "--steps", "5", "--out", "vary.png"]
    yield ["edit", "vary", "guided", digit, "--label", "2", "--guidance", "2", "--steps", "5", "--out", "vary2.png"]
    yield ["edit", "invert", "run", digit, "--steps", "10", "--out", "invert.png"]
    yield ["edit", "blend", "run", digit, "by/unipc/000001.png", "--steps", "5", "--out", "blend.png"]
    yield ["edit", "morph", "guided", "--labels", "2", "5", "--steps", "5", "--out", "morph.png"]
    yield ["likelihood", "run", "--num", "32"]
    yield ["likelihood", "guided", "--calls", "5", "--num", "32"]
    for run in ("run", "guided"):
        yield ["evaluate", run, "--num", "60", "--seeds", "2", "--steps", "4"]
    yield ["data", "inspect", "data/digits", "--sheet", "sheet.png"]
    yield ["doctor", "run"]
    yield ["report", "run", "--no-measure", "--out", "page.html"]
    yield ["report", "run", "guided", "--no-measure", "--out", "pages.html"]
    yield ["verify"]


def run(tree: Path, place: Path) -> None:
    """Run all commands of a checkout; what they print is kept in ``printed`` files."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    (place / "printed").mkdir(parents=True)
    for number, command in enumerate(commands()):
        asked = [sys.executable, "-m", "unstir", *command]
        done = subprocess.run(asked, cwd=place, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"unstir {' '.join(command)} of {tree} ended with {done.returncode}: {done.stderr}")
        name = "-".join(re.sub(r"\W", "", word) for word in command[:2])
        (place / f"printed/{number:02}-{name}.txt").write_text(f"{done.returncode}\n{done.stdout}")


def values(found: Any) -> Any:
    """JSON without what is of the moment, the place or the tree."""
    if isinstance(found, dict):
        return {key: values(value) for key, value in found.items() if not UNLIKE.search(key)}
    return [values(each) for each in found] if isinstance(found, list) else found


def files(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their names without hashes of settings."""
    return {DIGEST.sub("-#", str(p.relative_to(folder))): p for p in folder.rglob("*") if p.is_file()}


def content(file: Path) -> Any:
    """What of a file is compared."""
    if file.suffix == ".safetensors":
        return {name: tensor.tobytes() for name, tensor in load_file(file).items()}
    if file.suffix in (".png", ".webp"):
        with Image.open(file) as picture:
            return [np.asarray(frame.convert("RGBA")).tobytes() for frame in ImageSequence.Iterator(picture)]
    if file.suffix == ".npy":
        return file.read_bytes()
    if file.suffix == ".json":
        return values(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        return [
            values(json.loads(line[line.index("{") : line.rindex("}") + 1])) for line in file.read_text().splitlines()
        ]
    return file.read_text()


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """The places where two contents differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            if key not in old or key not in new:
                yield f"{where}.{key} is in the {'old' if key in old else 'new'} one alone"
            else:
                yield from differences(old[key], new[key], f"{where}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{where}[{at}]")
    elif old != new:
        shown = [repr(each)[:60] if not isinstance(each, bytes) else f"{len(each)} bytes" for each in (old, new)]
        yield f"{where}: {shown[0]} became {shown[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--keep", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.keep or Path(temporary)
        for name, tree in (("old", arguments.old), ("new", arguments.new)):
            if not (place / name).exists():
                run(tree.resolve(), place / name)
        old, new = (files(place / name) for name in ("old", "new"))
        found = same = 0
        for file in sorted({*old, *new}):
            if file in old and file in new:
                said = list(differences(content(old[file]), content(new[file])))
            else:
                said = [f" is in the {'old' if file in old else 'new'} one alone"]
            same += not said
            found += bool(said)
            for each in said[:SHOWN]:
                print(f"{file}{each}")
        print(f"{same} files are the same, {found} differ")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
