"""What a budget of images buys: a recipe, and what both peers do by default, on the same images and judged alike.

    pip install '.[bench,test]'
    python benchmarks/budget.py --out budget                     # the digits, three seeds, all sides
    python benchmarks/budget.py --out budget --images 294400 --seeds 1 --sides "diffusers, tuned"

diffusers' network has the structure of the recipe's, that of denoising-diffusion-pytorch is its own of the same width.
Each peer is trained as its own example or Trainer does by default (batches of 16, a rate of 1e-4, an average), and with
batches of 64 and a rate of 1e-3 ("tuned"), diffusers also with the velocity and the cosine schedule that the recipe has
("v"), in float32; ours as `unstir train` does, grids included. The peers are given
the images as tensors, mirrored where the recipe mirrors them. Each draws --num images by its default of 1000 calls and
in --calls calls by its fast sampler. They are judged by the Frechet distance in a classifier of the store's labels and,
for digits, by the SVM of the tests: its mean top probability. OUT/budget.json is written after each, and a command that
was killed goes on where it was; what was measured with another recipe, store, --num or --calls stays there and is
measured anew. Prints a Markdown table, means over seeds with their standard deviations.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

try:
    import denoising_diffusion_pytorch  # noqa: F401
    import diffusers as _  # noqa: F401
except ModuleNotFoundError as missing:
    raise SystemExit(f"{missing.name} is not installed; both peers come with: pip install '.[bench,test]'") from None

from peers import of_diffusers, of_lucidrains
from peers.sizes import Size, T
from unstir import Job, load_recipe, sample_batches
from unstir.chain import FAST
from unstir.data import Store
from unstir.metrics.classifier import classifier_for
from unstir.metrics.measure import measure
from unstir.pixels import from_uint8, to_uint8
from unstir.runs.build import num_parameters
from unstir.runs.config import Config, steps_in
from unstir.train.launch import open_data, train_run

Row = dict[str, Any]
Draw = Callable[[int, int], Tensor]  # (images, calls) to uint8 [N, C, H, W]
BATCH = 250  # images that are drawn at once


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training left: a function that draws, the network's parameters and the optimiser's steps."""

    draw: Draw
    parameters: int
    steps: int


@dataclasses.dataclass(frozen=True)
class Work:
    """What all sides are given: the recipe, its images, how many a training sees, and a folder for ours."""

    config: Config
    store: Store
    images: int
    folder: Path

    def size(self) -> Size:
        model = self.config.model
        return Size(
            model.channels,
            tuple(model.mults),
            tuple(model.attention),
            self.store.shape[1],
            self.config.train.batch_size,
            dropout=model.dropout,
            num_blocks=model.num_blocks,
            groups=model.groups,
            colours=self.store.shape[0],
        )

    def batches(self, batch: int) -> "Batches":
        """Those of a training: shuffled epochs without the last, smaller batch."""
        images, rows = self.store.images("train"), list[Tensor]()
        while len(rows) < self.images // batch:
            rows += torch.randperm(len(images)).split(batch)[: len(images) // batch]
        rows = rows[: self.images // batch]
        turned = [torch.rand(len(each), 1, 1, 1) < 0.5 if self.config.data.flip else None for each in rows]
        return Batches(images, rows, turned)


class Batches(Sequence[Tensor]):
    """Batches in -1..1, each made when it is asked for: together they are as large as all epochs."""

    def __init__(self, images: Tensor, rows: Sequence[Tensor], turned: Sequence[Tensor | None]) -> None:
        self._images, self._rows, self._turned = images, rows, turned

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number):
        x_0, turned = from_uint8(self._images[self._rows[number]]), self._turned[number]
        return x_0 if turned is None else torch.where(turned, x_0.flip(3), x_0)


def ours(work: Work, seed: int) -> Trained:
    train, folder = work.config.train, work.folder / f"run-{work.images}-{seed}"
    steps = work.images // train.batch_size
    epoch = work.store.count("train") // train.batch_size
    warmup = min(steps_in(train.warmup, epoch, train.batch_size), steps // 5)
    train = dataclasses.replace(train, length=f"{steps} steps", warmup=f"{warmup} steps", device="cpu")
    run = train_run(dataclasses.replace(work.config, seed=seed, train=train), folder).run
    model = run.model(device="cpu")

    def draw(num: int, calls: int) -> Tensor:
        chain = run.chain().changed(sampler="ancestral" if calls == T else FAST.sampler, steps=calls, seed=seed)
        job = Job(num=num, batch_size=BATCH, chain=chain)
        return torch.cat([to_uint8(images) for _, images in sample_batches(model, job)])

    return Trained(draw, num_parameters(run.config), steps)


def diffusers(work: Work, seed: int, batch: int, lr: float, warmup: int, velocity: bool = False) -> Trained:
    torch.manual_seed(seed)
    batches = work.batches(batch)
    net = of_diffusers.trained(work.size(), batches, lr, warmup, velocity)

    def part(num: int, calls: int) -> Tensor:
        return as_bytes(of_diffusers.drawing_of(net, num, calls, calls < T, velocity)())

    return Trained(in_parts(part), count(net), len(batches))


def lucidrains(work: Work, seed: int, batch: int, lr: float) -> Trained:
    torch.manual_seed(seed)
    batches = work.batches(batch)
    net = of_lucidrains.trained(work.size(), batches, lr)

    def part(num: int, calls: int) -> Tensor:
        return as_bytes(of_lucidrains.drawn(net, work.store.shape[1], num, calls))

    return Trained(in_parts(part), count(net), len(batches))


SIDES: dict[str, Callable[[Work, int], Trained]] = {
    "unstir": ours,
    "diffusers": partial(diffusers, batch=16, lr=1e-4, warmup=500),
    "diffusers, tuned": partial(diffusers, batch=64, lr=1e-3, warmup=100),
    "diffusers, tuned, v": partial(diffusers, batch=64, lr=1e-3, warmup=100, velocity=True),
    "denoising-diffusion-pytorch": partial(lucidrains, batch=16, lr=1e-4),
    "denoising-diffusion-pytorch, tuned": partial(lucidrains, batch=64, lr=1e-3),
}


def in_parts(part: Draw) -> Draw:
    """Draws `BATCH` images at once."""
    return lambda num, calls: torch.cat([part(min(BATCH, num - done), calls) for done in range(0, num, BATCH)])


def as_bytes(images: Tensor) -> Tensor:
    """Images in 0..1 as bytes."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


class Judges:
    """Of images, uint8 [N, C, H, W]: the distance in a classifier, and for digits how sure the SVM of the tests is."""

    def __init__(self, store: Store, digits: bool) -> None:
        self._store, self._classifier = store, classifier_for(store)
        self._svm = svm_of(store) if digits else None

    def __call__(self, images: Tensor) -> dict[str, float]:
        figure = measure(self._store, [images], [self._classifier])["classifier/fd"]
        svm = {} if self._svm is None else {"svm": float(self._svm(images.numpy()).confidence)}
        return {"fd": figure.by_seed[0], "floor": figure.floor, **svm}


def svm_of(store: Store):
    sys.path.append(str(Path(__file__).parents[1] / "tests/quality"))
    from judge import Judge

    splits = [(store.images(split), store.labels(split)) for split in ("train", "held_out")]
    return Judge(*(each.numpy() for pair in splits for each in pair))


def measured(asked: Row, work: Work, judges: Judges) -> Row:
    """What is written down of a side and a seed: what was ``asked``, and the figures."""
    began, seed = time.process_time(), asked["seed"]
    trained = SIDES[asked["side"]](work, seed)
    row = {**asked, "seconds": time.process_time() - began, "steps": trained.steps, "parameters": trained.parameters}
    for calls in asked["calls"]:
        torch.manual_seed(seed)
        row[str(calls)] = judges(trained.draw(asked["num"], calls))
    return row


def table(rows: Sequence[Row], calls: Sequence[int]) -> list[str]:
    """The lines of a Markdown table, a row for each side and number of images."""
    figures = [name for name in ("svm", "fd") if name in rows[0][str(calls[0])]]
    heads = [f"{'SVM' if name == 'svm' else 'FD-classifier'}, {each} calls" for each in calls for name in figures]
    lines = ["| " + " | ".join(["", "images", "seeds", "steps", "parameters", "CPU time", *heads]) + " |"]
    lines.append("|---" * (6 + len(heads)) + "|")
    for side, images in dict.fromkeys((row["side"], row["images"]) for row in rows):
        of = [row for row in rows if (row["side"], row["images"]) == (side, images)]
        cells = [side, f"{images:,}", len(of), f"{of[0]['steps']:,}", f"{of[0]['parameters']:,}"]
        cells.append(f"{mean(row['seconds'] for row in of):.0f} s")
        cells += [spread([row[str(each)][name] for row in of]) for each in calls for name in figures]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def images_of(config: Config, store: Store) -> int:
    """How many the recipe's training sees."""
    batch = config.train.batch_size
    return batch * steps_in(config.train.length, store.count("train") // batch, batch)


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="digits")
    parser.add_argument("--store", default="", help="images in place of the recipe's own")
    parser.add_argument(
        "--images", type=int, default=0, help="that each training sees; the recipe's own number by default"
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num", type=int, default=500, help="images drawn of each")
    parser.add_argument("--calls", type=int, nargs="+", default=[T, 20])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    config = load_recipe(options.recipe)
    if options.store:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, source=options.store))
    options.out.mkdir(parents=True, exist_ok=True)
    store = open_data(config, options.out / "none")
    work = Work(config, store, options.images or images_of(config, store), options.out)
    path = options.out / "budget.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    judges = Judges(store, config.data.source == "digits")
    alike = {"recipe": options.recipe, "store": store.content_hash, "num": options.num, "calls": options.calls}
    for seed in range(options.seeds):
        for name in options.sides:
            asked = {"side": name, "seed": seed, "images": work.images, **alike}
            if not any(asked.items() <= row.items() for row in rows):
                rows.append(measured(asked, work, judges))
                path.write_text(json.dumps(rows, indent=1) + "\n")
                print(rows[-1], flush=True)
    print("\n".join(table([row for row in rows if alike.items() <= row.items()], options.calls)))


if __name__ == "__main__":
    main()
