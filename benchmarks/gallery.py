"""Carry out the commands of docs/gallery.md and put what they draw into docs/images/gallery.

    unstir data pack cifar/ --out data/cifar10
    python benchmarks/gallery.py --run runs/long       # the training whose states the first picture shows
    python benchmarks/gallery.py --only guidance-2     # the pictures of these names alone

The page names each picture images/gallery/NAME.png below the command that writes gallery/NAME. Of a folder it is the
grid or the comparison, of an evaluation the nearest pairs. What is there already is not drawn again. Two pictures have
no command of their own: *progress* sets the same noise beside itself, and *real* shows held-out images by class.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

from unstir import Run, Store
from unstir.pictures.grid import contact_sheet, named_grid, read

PAGE = Path(__file__).parents[1] / "docs/gallery.md"
IMAGES = PAGE.parent / "images/gallery"
SHOWN, ACROSS = 8, 10  # images of a row of progress, and of the real ones
REAL = 40


def commands(page: str) -> list[list[str]]:
    """The commands of a page's blocks of sh, as words, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [words for line in "".join(blocks).splitlines() if (words := shlex.split(line, comments=True))]


def out_of(words: list[str]) -> Path:
    """What a command writes: the value of its --out; SystemExit where it has none."""
    if "--out" not in words:
        raise SystemExit(f"gallery.py: {shlex.join(words)} names no --out")
    return Path(words[words.index("--out") + 1])


def picture(out: Path) -> Path:
    """The picture among what a command wrote."""
    if out.is_file():
        return out
    found = [*out.glob("compare.png"), *out.glob("grid.png"), *out.glob("**/*-pairs.png")]
    if not found:
        raise SystemExit(f"gallery.py: {out} holds no picture")
    return found[0]


def progress(run: Run, steps: list[int]) -> Image.Image:
    """The first images of the folders gallery/progress-STEP, a row each."""
    rows = [
        (f"{run.images_seen(step):,} images", torch.stack([read(drawn(step) / f"{k:06d}.png") for k in range(SHOWN)]))
        for step in steps
    ]
    return contact_sheet(rows)


def drawn(step: int) -> Path:
    return Path(f"gallery/progress-{step}")


def real(store: Store) -> Image.Image:
    """Held-out images in order, class after class as the samples are drawn."""
    labels = store.labels("held_out")
    assert labels is not None
    places = [torch.nonzero(labels == number).flatten().tolist() for number in range(len(store.classes))]
    order = [places[k % len(places)][k // len(places)] for k in range(REAL)]
    names = [store.classes[k % len(places)] for k in range(REAL)]
    return named_grid(store.images("held_out")[order], ACROSS, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the training that made the model, with its kept averages")
    parser.add_argument("--only", nargs="*", help="names of pictures")
    asked = parser.parse_args()
    page, steps = PAGE.read_text(encoding="utf-8"), list[int]()
    IMAGES.mkdir(parents=True, exist_ok=True)
    for words in commands(page):
        out = out_of(words)
        if asked.only and out.stem not in asked.only:
            continue
        if out.parent.name == "gallery" and not out.exists():
            print(shlex.join(words), flush=True)
            subprocess.run([sys.executable, "-m", *words], check=True)
        if match := re.fullmatch(r"progress-(\d+)", out.name):
            steps.append(int(match[1]))
        elif f"images/gallery/{out.stem}.png" in page:
            Image.open(picture(out)).save(IMAGES / f"{out.stem}.png", optimize=True)
    if steps and asked.run:
        progress(Run.open(asked.run), steps).save(IMAGES / "progress.png", optimize=True)
    if not asked.only or "real" in asked.only:
        real(Store.open("data/cifar10")).save(IMAGES / "real.png", optimize=True)


if __name__ == "__main__":
    main()
