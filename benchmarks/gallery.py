"""Make the pictures of docs/gallery.md: carry out its commands, and copy what they draw to docs/images/gallery.

    python benchmarks/gallery.py            # in the folder that has runs/long and its images, cifar/
    python benchmarks/gallery.py growth runs/long growth.png        # these three are commands of the page
    python benchmarks/gallery.py real cifar/test real.png
    python benchmarks/gallery.py nearest cifar10-small nearest.png

A command of the page writes NAME.png, NAME/grid.png or NAME/compare.png, and the page shows images/gallery/NAME.png. A
picture that is there already is not drawn again.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unstir import Run
from unstir.pictures.grid import GAP, LINE, contact_sheet, named_grid, read, scale_of
from unstir.runs.timetable import all_snapshots, drawn_grid

PAGE = Path(__file__).resolve().parents[1] / "docs/gallery.md"
SHOWN = 6  # samples beside the training images nearest to them
PARTS = 4  # of the training: the report shows its epochs 0, 50, 100, 150 and 199
ROWS = 4  # real images of a class
HEIGHT = 32  # of an image, in pixels


def growth(folder: Path) -> Image.Image:
    """The first row of the grids that a run drew from one noise: the noise, untrained, and after each part."""
    run = Run.open(folder)
    drawn = {step: drawn_grid(run, name) for step, name in all_snapshots(run).items()}
    steps = sorted(step for step, path in drawn.items() if path)
    near = [min(steps, key=lambda step: abs(step - steps[-1] * part / PARTS)) for part in range(PARTS + 1)]
    rows = [("noise", first_row(run, drawn_grid(run, "noise"), names=False))]
    rows += [(f"{run.images_seen(step):,}", first_row(run, drawn[step])) for step in dict.fromkeys(near)]
    return contact_sheet(rows)


def first_row(run: Run, path: Path | None, names: bool = True) -> Tensor:
    """Its images, uint8 [N, C, H, W]; a grid of a run by class has a line of ``names`` above them."""
    assert path is not None
    _, height, width = run.data.shape
    scale, top = scale_of(height), GAP + LINE * (names and bool(run.labels.count))
    grid = read(path)[:, top : top + scale * height : scale]
    return torch.stack([grid[:, :, left : left + scale * width : scale] for left in lefts(run, scale * width)])


def lefts(run: Run, width: int) -> range:
    """Where the tiles of a row begin."""
    return range(GAP, GAP + run.config.grids.nrow * (width + GAP), width + GAP)


def real(folder: Path) -> Image.Image:
    """The first images of each class of a folder of classes, a column each."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(path.iterdir())[row] for row in range(ROWS) for path in classes]
    images = torch.from_numpy(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    return named_grid(images.permute(0, 3, 1, 2), len(classes), [path.name for path in classes] * ROWS)


def nearest(folder: Path) -> Image.Image:
    """The first samples of the picture that the newest evaluation in the folder drew, with their nearest images."""
    newest = max(folder.glob("evaluation/*-pairs.png"), key=lambda path: path.stat().st_mtime)
    picture = Image.open(newest)
    return picture.crop((0, 0, picture.width, GAP + SHOWN * (HEIGHT * scale_of(HEIGHT) + GAP)))


def make_all() -> None:
    """Carry out the blocks of commands of the page whose pictures are missing, and copy these."""
    text, folder = PAGE.read_text(encoding="utf-8"), PAGE.parent / "images/gallery"
    folder.mkdir(exist_ok=True)
    names = re.findall(r"\(images/gallery/(\S+)\.png\)", text)
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        missing = [name for name in names if re.search(rf" {name}\b", block) and not (folder / f"{name}.png").exists()]
        if missing:
            subprocess.run(["sh", "-ex", "-c", block], check=True)
        for name in missing:
            made = Path(f"{name}.png"), Path(name, "grid.png"), Path(name, "compare.png")
            shutil.copy(next(path for path in made if path.exists()), folder / f"{name}.png")


def main() -> None:
    """One picture, or all."""
    if len(sys.argv) == 1:
        make_all()
    else:
        kind, source, out = sys.argv[1:]
        {"growth": growth, "real": real, "nearest": nearest}[kind](Path(source)).save(out, optimize=True)


if __name__ == "__main__":
    main()
