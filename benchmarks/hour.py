"""The laptop hour: what an hour of training buys on this machine, by `unstir train` and by diffusers.

    pip install '.[bench]'
    python benchmarks/hour.py --data cifar/ --out hour                   # two trainings of each side: four hours
    python benchmarks/hour.py --data cifar/ --out hour --arm diffusers-1 # one of them
    python benchmarks/hour.py --out hour --table                         # what is done, as Markdown

Each training has --minutes of wall time. Ours is the recipe with a length that ends then: by a step that is measured
first, and again by the steps taken, at each of `ENDS` and where a killed one goes on. diffusers trains its UNet2DModel
of equal structure as its example does (AdamW, an average whose length grows), tuned: the velocity under the cosine
schedule, batches of --batch, a rate of --rate that falls as a cosine of the time, bfloat16 where the device has it.
Neither draws grids nor measures losses meanwhile. Each draws --num images in --calls calls by its fast sampler,
without guidance. They are judged by the Frechet distance in a classifier of the store's labels, the sliced Wasserstein
distance, bits per dimension of held-out images (of diffusers' network as a run of ours), and by the nearest training
images. Killed at any time, the same command goes on, a training with the seconds that are left to it. OUT/ARM.json has
the figures of an arm, OUT/ARM-SAMPLER.png its first images. Prints the table, with standard deviations over trainings.
"""

import argparse
import dataclasses
import importlib.util
import json
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from levers import lasting, seconds_a_step
from peers import machine
from peers.judges import TITLES, Judges, Trained, count, drawing, in_parts, spread
from peers.kept import changed, earlier, write
from peers.ours import batches_of
from peers.sizes import size_of
from peers.tables import table as markdown
from unstir import Config, Observer, Run, Stop, Store, load_recipe
from unstir.chain import FAST
from unstir.pictures.grid import grid
from unstir.runs import checkpoint
from unstir.runs.build import device, dtype, num_parameters
from unstir.runs.toml import is_run
from unstir.train.launch import open_data, train_run

Row = dict[str, Any]
ARMS = ("ours-0", "diffusers-0", "ours-1", "diffusers-1")  # side and seed
QUIET = {"grids.log_spaced": 0, "grids.num": 1, "log.held_out_images": 0}
ENDS = (0.1, 0.3, 0.6, 0.9)  # shares of the time
WARMUP = 0.05  # of diffusers, a share of the time
SAVED, WAITED = 60.0, 50  # seconds between files of diffusers' state at most, steps between waits for a GPU


@dataclasses.dataclass(frozen=True)
class Hour:
    """What every training is given: a recipe's ``config``, the images and the ``seconds``; ``rate`` is diffusers'."""

    config: Config
    store: Store
    seconds: float
    rate: float
    batch: int


class Clock(Observer):
    """The wall seconds that a training has used, by step, in a file. They go on from the step where it goes on.

    ``stop`` is asked for at the next of ``ends``, in seconds.
    """

    def __init__(self, file: Path, ends: Sequence[float]) -> None:
        self.stop, self._file, self._ends = Stop(), file, ends
        self._began, self._before, self._end = time.perf_counter(), seconds_at(file), math.inf

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._began

    def begin(self, step: int, length: int, shape: tuple[int, ...], snapshots: Sequence[int] = ()) -> None:
        self._before = seconds_at(self._file, step)
        part = self._file.with_suffix(".part")
        part.write_text(f"{step} {self._before:.3f}\n")  # in place of later steps, which were lost, and of half a line
        part.replace(self._file)
        self._end = next((end for end in self._ends if end > self._before), math.inf)

    def note(self, step: int) -> None:
        with self._file.open("a") as file:
            file.write(f"{step} {self.seconds:.3f}\n")

    def step(self, step: int) -> None:
        self.note(step)
        if self.seconds > self._end:
            self.stop.request(signal.SIGTERM)


def seconds_at(file: Path, step: float = math.inf) -> float:
    """The seconds of a clock's file at a step: its last whole line of that step or an earlier one."""
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return next((float(line[1]) for line in reversed(lines) if len(line) == 2 and int(line[0]) <= step), 0.0)


def ours(hour: Hour, folder: Path, seed: int) -> tuple[Trained, float]:
    """Our training, and the seconds it took."""
    while True:
        config = planned(hour, folder, seed)
        clock = Clock(folder / "clock.txt", [share * hour.seconds for share in ENDS])
        training = train_run(config, folder / "run", observer=clock, stop=clock.stop)
        clock.note(training.step)
        if training.finished:
            break
    run, model = training.run, training.run.model()
    draws = {FAST.sampler: drawing(run, model, FAST.sampler, seed)}
    return Trained(draws, num_parameters(run.config), training.step, model), clock.seconds


def planned(hour: Hour, folder: Path, seed: int) -> Config:
    """The config of a training, new or going on, with the length that is reached when its time is over."""
    if not is_run(folder / "run"):
        config = dataclasses.replace(changed(hour.config, QUIET), seed=seed)
        measured = seconds_a_step({"": config}, hour.store, folder / "speed", min(2.0, hour.seconds / 100))
        return lasting(config, max(round(hour.seconds / measured[""]), 1))
    run = Run.open(folder / "run")
    taken = max((step for step, _ in checkpoint.listed(run.checkpoints)), default=0)
    used, warmup = seconds_at(folder / "clock.txt", taken), run.steps_in(run.config.train.warmup)
    if used < ENDS[0] * hour.seconds:  # too few to plan by
        return run.config
    steps = max(taken + round((hour.seconds - used) * taken / used), taken, warmup + 1)
    return changed(run.config, {"train.length": f"{steps} steps", "train.lr_period": f"{steps - warmup} steps"})


def diffusers(hour: Hour, folder: Path, seed: int) -> tuple[Trained, float]:
    """diffusers' training, and the seconds it took."""
    from peers import of_diffusers

    on, saved = device(hour.config.train.device), folder / "state.pt"
    torch.manual_seed(seed)
    net = of_diffusers.network(size_of(hour.config, hour.store.shape), on)
    net = net.to(memory_format=torch.channels_last) if on.type == "cuda" else net
    native = dtype("auto", on) == torch.bfloat16
    training = of_diffusers.Training(net, hour.rate, velocity=True, autocast=native, fused=True)
    batches = batches_of(hour.store, hour.batch, on, seed, hour.config.data.flip)
    known = training.restore(saved) if saved.exists() else {"step": 0, "seconds": 0.0}
    step, last = known["step"], known["seconds"]
    began = time.perf_counter() - last
    torch.manual_seed(1_000_003 * seed + step)  # of the noise, which differs where a training goes on
    while (seconds := time.perf_counter() - began) < hour.seconds:
        training.step(batches(step), of_diffusers.falling(seconds / hour.seconds, WARMUP))
        step += 1
        if on.type == "cuda" and step % WAITED == 0:
            torch.cuda.synchronize()
        if seconds - last > min(SAVED, hour.seconds / 10):
            training.save(saved, step=step, seconds=seconds)
            last = seconds
    training.save(saved, step=step, seconds=seconds)
    net = training.averaged()

    draw = in_parts(lambda num, calls: of_diffusers.drawing_of(net, num, calls, solver=True, velocity=True)())
    model = of_diffusers.imported(net, folder, hour.store, velocity=True).model()
    return Trained({"DPMSolverMultistep": draw}, count(net), step, model), seconds


def measured(hour: Hour, name: str, out: Path, num: int, calls: int) -> Row:
    """An arm trained, drawn and judged."""
    side, seed = name.rsplit("-", 1)
    folder, about = out / name, machine.described(device(hour.config.train.device))
    folder.mkdir(exist_ok=True)
    trained, seconds = {"ours": ours, "diffusers": diffusers}[side](hour, folder, int(seed))
    batch = hour.config.train.batch_size if side == "ours" else hour.batch
    row: Row = {"side": side, "seed": int(seed), "steps": trained.steps, "images": trained.steps * batch}
    judges = Judges(hour.store, hour.config.data.flip)
    row |= {"seconds": seconds, "parameters": trained.parameters, **judges.bits(trained.model), "drawn": {}}
    for sampler, draw in trained.draws.items():
        torch.manual_seed(int(seed))
        images = draw(num, calls)
        grid(images[:64]).save(out / f"{name}-{sampler}.png")
        row["drawn"][sampler] = judges.images(images) | judges.copies(images)
    return {**row, "machine": about}


def table(rows: Sequence[Row]) -> str:
    """The machine, and a row of Markdown for each sampler of each side."""
    figures = ("fd", "swd")
    head = ["", "trainings", "minutes", "images seen", "parameters", *(TITLES[name] for name in figures), "bits/dim"]
    body = []
    for side, sampler in dict.fromkeys((row["side"], sampler) for row in rows for sampler in row["drawn"]):
        of = [row for row in rows if row["side"] == side]
        drawn = [row["drawn"][sampler] for row in of]
        minutes, images = mean(row["seconds"] for row in of) / 60, mean(row["images"] for row in of)
        cells = [f"{side}, {sampler}", f"{len(of)}", f"{minutes:.1f}", f"{images:,.0f}", f"{of[0]['parameters']:,}"]
        cells += [spread([each[name] for each in drawn]) for name in figures]
        cells += [spread([row["bits"] for row in of]), spread([each["nearer"] for each in drawn])]
        body.append([*cells, ", ".join(dict.fromkeys(f"{each['copies']}" for each in drawn))])
    floors = [f"{next(iter(rows[0]['drawn'].values()))[f'{name}_floor']:.3f}" for name in figures]
    body.append(["held-out images", "", "", "", "", *floors, "", "0.500", ""])
    about = markdown(("measured", ""), rows[0]["machine"])
    return f"{about}\n\n{markdown([*head, 'nearer to training images', 'copies'], body)}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="a folder of images by class, or a packed store")
    parser.add_argument("--recipe", default="cifar10-small")
    parser.add_argument("--minutes", type=float, default=60.0, help="wall time of each training")
    parser.add_argument("--rate", type=float, default=1e-3, help="diffusers' learning rate")
    parser.add_argument("--batch", type=int, default=64, help="diffusers' batch size")
    parser.add_argument("--num", type=int, default=1000, help="images drawn of each, 20 at least")
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--arm", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print the table of the arms that are done, and no more")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    if not options.table:
        run_arms(options)
    files = [options.out / f"{name}.json" for name in ARMS]
    if rows := [json.loads(file.read_text()) for file in files if file.exists()]:
        print(table(rows))


def run_arms(options: argparse.Namespace) -> None:
    """Every arm that is asked for and not done yet."""
    if importlib.util.find_spec("diffusers") is None:
        raise SystemExit("diffusers is not installed; it comes with: pip install '.[bench]'")
    options.out.mkdir(parents=True, exist_ok=True)
    config = load_recipe(options.recipe)
    if options.data:
        config = changed(config, {"data.source": options.data, "data.store": str(options.out / "store")})
    store = open_data(config, options.out / "none")
    about = {key: getattr(options, key) for key in ("recipe", "minutes", "rate", "batch", "num", "calls")}
    write(options.out / "hour.json", earlier(options.out / "hour.json", {"data": store.content_hash, **about}, {}))
    hour = Hour(config, store, 60 * options.minutes, options.rate, options.batch)
    for name in options.arm:
        if not (file := options.out / f"{name}.json").exists():
            write(file, measured(hour, name, options.out, options.num, options.calls))
            print(f"{name} is done", flush=True)


if __name__ == "__main__":
    main()
