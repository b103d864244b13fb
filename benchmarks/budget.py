"""What a budget of images buys: a recipe, and what both peers do by default, on the same images and judged alike.

    pip install '.[bench,test]'
    python benchmarks/budget.py --out budget                     # the digits, three seeds, all sides
    python benchmarks/budget.py --out budget --images 294400 --seeds 1 --sides "diffusers, tuned"
    python benchmarks/budget.py mnist --out budget --calls 20 --sides unstir "diffusers, tuned, v" --runs runs/mnist

diffusers' network has the structure of the recipe's, that of denoising-diffusion-pytorch is its own of the same width.
Each peer is trained as its own example or Trainer does by default (batches of 16, a rate of 1e-4, an average), and with
batches of 64 and a rate of 1e-3 ("tuned"), diffusers also with the velocity and the cosine schedule that the recipe has
("v", at four rates), in float32; ours as `unstir train` does, grids included. The peers are given the images as
tensors, mirrored where the recipe mirrors them. Each draws --num images by its default of 1000 calls and in --calls
calls by its fast sampler, without guidance. They are judged by the Frechet distance in a classifier of the store's
labels, the sliced Wasserstein distance, bits per dimension where a network is ours or can be imported, and for digits
by the SVM of the tests: its mean top probability. --runs adds trained runs as they are. OUT/budget.json is written
after each, and a command that was killed goes on where it was; what was measured with another recipe, store, --num or
--calls stays there and is measured anew. Prints a Markdown table, means over seeds with their standard deviations.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

try:
    import diffusers as _  # noqa: F401
except ModuleNotFoundError as missing:
    raise SystemExit(f"{missing.name} is not installed; both peers come with: pip install '.[bench,test]'") from None

from levers import lasting
from peers import of_diffusers
from peers.judges import TITLES, Draw, Judges, Trained, count, drawing, in_parts, spread
from peers.kept import changed, write
from peers.ours import batches_of
from peers.sizes import T, size_of
from peers.tables import table as markdown
from unstir import Run, load_recipe
from unstir.chain import FAST
from unstir.data import Store
from unstir.runs.build import num_parameters
from unstir.runs.config import Config, steps_in
from unstir.train.launch import open_data, train_run

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Work:
    """What all sides are given: the recipe, its images, how many a training sees, and a folder for ours."""

    config: Config
    store: Store
    images: int
    folder: Path

    def batches(self, seed: int, batch: int) -> tuple[Callable[[int], Tensor], int]:
        """Those of a training, and their number."""
        how = {"seed": seed, "flip": self.config.data.flip}
        return batches_of(self.store, batch, torch.device("cpu"), **how), self.images // batch


def ours(work: Work, seed: int) -> Trained:
    folder = work.folder / f"run-{work.config.recipe}-{work.images}-{seed}"
    config = lasting(work.config, work.images // work.config.train.batch_size, 5)
    run = train_run(dataclasses.replace(changed(config, {"train.device": "cpu"}), seed=seed), folder).run
    return drawn_by(run, seed)


def drawn_by(run: Run, seed: int = 0) -> Trained:
    """A trained run of ours."""
    model = run.model(device="cpu")
    draws = {"fast": drawing(run, model, FAST.sampler, seed), "usual": drawing(run, model, "ancestral", seed)}
    return Trained(draws, num_parameters(run.config), run.newest_step(), model)


def diffusers(work: Work, seed: int, batch: int, lr: float, warmup: int, velocity: bool = False) -> Trained:
    torch.manual_seed(seed)
    batches, steps = work.batches(seed, batch)
    net = of_diffusers.trained(size_of(work.config, work.store.shape), batches, steps, lr, warmup, velocity)

    def draw(solver: bool) -> Draw:
        return in_parts(lambda num, calls: of_diffusers.drawing_of(net, num, calls, solver, velocity)())

    draws = {"fast": draw(True), "usual": draw(False)}
    model = of_diffusers.imported(net, work.folder, work.store, velocity).model(device="cpu")
    return Trained(draws, count(net), steps, model)


def lucidrains(work: Work, seed: int, batch: int, lr: float) -> Trained:
    from peers import of_lucidrains

    torch.manual_seed(seed)
    batches, steps = work.batches(seed, batch)
    net = of_lucidrains.trained(size_of(work.config, work.store.shape), batches, steps, lr)
    draw = in_parts(lambda num, calls: of_lucidrains.drawn(net, work.store.shape[1], num, calls))
    return Trained({"fast": draw, "usual": draw}, count(net), steps)


SIDES: dict[str, Callable[[Work, int], Trained]] = {
    "unstir": ours,
    "diffusers": partial(diffusers, batch=16, lr=1e-4, warmup=500),
    "diffusers, tuned": partial(diffusers, batch=64, lr=1e-3, warmup=100),
    "diffusers, tuned, v": partial(diffusers, batch=64, lr=1e-3, warmup=100, velocity=True),
    "diffusers, tuned, v, 2e-3": partial(diffusers, batch=64, lr=2e-3, warmup=100, velocity=True),
    "diffusers, tuned, v, 4e-3": partial(diffusers, batch=64, lr=4e-3, warmup=100, velocity=True),
    "diffusers, tuned, v, 8e-3": partial(diffusers, batch=64, lr=8e-3, warmup=100, velocity=True),
    "denoising-diffusion-pytorch": partial(lucidrains, batch=16, lr=1e-4),
    "denoising-diffusion-pytorch, tuned": partial(lucidrains, batch=64, lr=1e-3),
}


def svm_of(store: Store):
    sys.path.append(str(Path(__file__).parents[1] / "tests/quality"))
    from judge import Judge

    splits = [(store.images(split), store.labels(split)) for split in ("train", "held_out")]
    return Judge(*(each.numpy() for pair in splits for each in pair))


def measured(asked: Row, work: Work, judges: Judges, svm: Callable[..., Any] | None) -> Row:
    """What is written down of a side and a seed: what was ``asked``, and the figures."""
    began, seed, side = time.process_time(), asked["seed"], asked["side"]
    trained = SIDES[side](work, seed) if side in SIDES else drawn_by(Run.open(side))
    seconds = time.process_time() - began if side in SIDES else None
    row = {**asked, "seconds": seconds, "steps": trained.steps, "parameters": trained.parameters}
    row |= judges.bits(trained.model) if trained.model else {}
    for calls in asked["calls"]:
        torch.manual_seed(seed)
        images = trained.draws["fast" if calls < T else "usual"](asked["num"], calls)
        row[str(calls)] = judges.images(images)
        if svm is not None:
            sure, floor = (float(svm(of.numpy()).confidence) for of in (images, work.store.images("held_out")))
            row[str(calls)] |= {"svm": sure, "svm_floor": floor}
    return row


def table(rows: Sequence[Row], calls: Sequence[int]) -> str:
    """A Markdown table, a row for each side and number of images, and one of the floors."""
    figures = [(str(each), name) for each in calls for name in TITLES if name in rows[0][str(each)]]
    head = ["", "images", "seeds", "steps", "parameters", "CPU time", "bits/dim"]
    body = []
    for side, images in dict.fromkeys((row["side"], row["images"]) for row in rows):
        of = [row for row in rows if (row["side"], row["images"]) == (side, images)]
        cells = [side, f"{images:,}", f"{len(of)}", f"{of[0]['steps']:,}", f"{of[0]['parameters']:,}"]
        cells.append("" if of[0]["seconds"] is None else f"{mean(row['seconds'] for row in of):.0f} s")
        cells.append(spread([row["bits"] for row in of]) if "bits" in of[0] else "")
        body.append(cells + [spread([row[each][name] for row in of]) for each, name in figures])
    floors = [f"{rows[0][each][f'{name}_floor']:.3f}" for each, name in figures]
    body.append(["held-out images", *[""] * 6, *floors])
    return markdown([*head, *(f"{TITLES[name]}, {each} calls" for each, name in figures)], body)


def images_of(config: Config, store: Store) -> int:
    """How many the recipe's training sees."""
    batch = config.train.batch_size
    return batch * steps_in(config.train.length, store.count("train") // batch, batch)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="digits")
    parser.add_argument("--store", default="", help="images in place of the recipe's own")
    parser.add_argument(
        "--images", type=int, default=0, help="that each training sees; the recipe's own number by default"
    )
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--runs", nargs="*", default=[], help="folders of trained runs, judged as they are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num", type=int, default=500, help="images drawn of each")
    parser.add_argument("--calls", type=int, nargs="+", default=[T, 20])
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    if any(name.startswith("denoising") for name in options.sides):
        import denoising_diffusion_pytorch  # noqa: F401  # missed now, and not after the other sides
    config = load_recipe(options.recipe)
    if options.store:
        config = changed(config, {"data.source": options.store})
    options.out.mkdir(parents=True, exist_ok=True)
    store = open_data(config, options.out / "none")
    work = Work(config, store, options.images or images_of(config, store), options.out)
    path = options.out / "budget.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    judges, svm = Judges(store), svm_of(store) if config.data.source == "digits" else None
    alike = {"recipe": options.recipe, "store": store.content_hash, "num": options.num, "calls": options.calls}
    every = [(name, seed, work.images) for seed in range(options.seeds) for name in options.sides]
    for name, seed, images in every + [(name, 0, seen_by(Run.open(name))) for name in options.runs]:
        asked = {"side": name, "seed": seed, "images": images, **alike}
        if not any(asked.items() <= row.items() for row in rows):
            rows.append(measured(asked, work, judges, svm))
            write(path, rows)
            print(rows[-1], flush=True)
    print(table([row for row in rows if alike.items() <= row.items()], options.calls))


def seen_by(run: Run) -> int:
    """How many images a run has been trained on."""
    return run.newest_step() * run.config.train.batch_size


if __name__ == "__main__":
    main()
