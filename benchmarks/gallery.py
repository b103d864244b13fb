"""Make the pictures of docs/gallery.md: carry out its commands, and copy what they draw to docs/images/gallery.

    python benchmarks/gallery.py            # in the folder that has cifar/ and its store, data/cifar
    python benchmarks/gallery.py growth cifar10-small growth.png    # these four are commands of the page
    python benchmarks/gallery.py curve data/cifar curve.png
    python benchmarks/gallery.py real cifar/test real.png
    python benchmarks/gallery.py nearest cifar10-small nearest.png

A command of the page writes NAME.png, NAME/grid.png or NAME/compare.png, and the page shows images/gallery/NAME.png. A
picture that is there already is not drawn again.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from peers.judges import Judges, drawing, images_of
from unstir import Job, Model, Run
from unstir.data import Store
from unstir.diffusion.draw import starting_noise
from unstir.pictures.charts import images_axis, log_axis, save_figure, style
from unstir.pictures.grid import GAP, contact_sheet, named_grid, scale_of
from unstir.runs.build import network

PAGE = Path(__file__).resolve().parents[1] / "docs/gallery.md"
SHOWN = 6  # samples beside the training images nearest to them
SHIPPED = {251_136: "2ef262dd", 804_928: "232a6624", 1_889_024: "ed83defc"}  # images seen, and the commit
HOUR = {"unstir, an hour": (152_880, 0.200), "diffusers, an hour": (174_688, 0.662)}  # docs/performance.md
CALLS, JUDGED = 20, 1000  # calls of the network by `unipc`, and images of a point of the curve, as of the hours
ROWS = 4  # real images of a class
HEIGHT = 32  # of an image, in pixels


def growth(name: Path) -> Image.Image:
    """One noise, drawn by the untrained network, by the weights that earlier commits shipped, and by today's."""
    rows: list[tuple[str, Tensor]] = []
    for seen, model in trained_to(Run.open(name)):
        indices, chain = torch.arange(model.labels.count), model.chain.changed(sampler="unipc", steps=CALLS, guidance=2)
        rows = rows or [("noise", model.pixels(starting_noise(chain.seed, indices, model.shape)))]
        rows.append((f"{seen:,}", images_of(model, Job(num=len(indices), chain=chain))))
    return contact_sheet(rows)


def curve(data: Path) -> Figure:
    """FD-classifier of the weights of `growth` by images seen, beside the trainings of an hour and held-out images."""
    judges, run = Judges(Store.open(data)), Run.open("cifar10-small")
    of = {seen: judges.images(drawing(run, model, "unipc")(JUDGED, CALLS)) for seen, model in trained_to(run) if seen}
    print(json.dumps(of))
    with style():
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(list(of), [each["fd"] for each in of.values()], label="the weights of this page")
        for name, (seen, fd) in HOUR.items():
            axes.plot([seen], [fd], linestyle="", label=name)
        axes.axhline(next(iter(of.values()))["fd_floor"], color="grey", label="held-out images")
        log_axis(axes, "y")
        images_axis(axes)
        axes.set_ylabel("FD-classifier")
        axes.legend()
    return figure


def trained_to(run: Run) -> Iterator[tuple[int, Model]]:
    """A model that comes with the package after each number of images seen; one model, whose weights change."""
    model = run.model(dtype="float32", device="cpu")
    net = model.denoiser.net
    weights = {0: network(run.config, torch.device("cpu")).state_dict()}
    weights |= {seen: shipped(run, commit) for seen, commit in SHIPPED.items()}
    weights[images_seen(run)] = deepcopy(net.state_dict())
    for seen, of in weights.items():
        net.load_state_dict(of)
        yield seen, model


def shipped(run: Run, commit: str) -> dict[str, Tensor]:
    """The weights that a commit of this repository has of a model that comes with the package."""

    def git(*words: str) -> bytes:
        return subprocess.run(["git", *words], cwd=PAGE.parents[1], check=True, capture_output=True).stdout

    folder = f"{commit}:src/unstir/models/{run.files.name}/weights"
    (file,) = git("ls-tree", "--name-only", folder).decode().split()
    tensors = load(git("show", f"{folder}/{file}"))
    return {key.removeprefix("model."): value for key, value in tensors.items()}


def images_seen(run: Run) -> int:
    """As the card of a model that comes with the package says it."""
    (seen,) = re.findall(r"([\d,]+) images seen", (run.files / "README.md").read_text(encoding="utf-8"))
    return int(seen.replace(",", ""))


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
        if kind == "curve":
            save_figure(curve(Path(source)), Path(out))
        else:
            {"growth": growth, "real": real, "nearest": nearest}[kind](Path(source)).save(out, optimize=True)


if __name__ == "__main__":
    main()
