"""Levers of training at equal wall time: which setting gives the best images in so many minutes of this machine.

    python benchmarks/levers.py digits --minutes 2 --out levers/digits
    python benchmarks/levers.py cifar10-small --minutes 20 --levers plain v muon --seeds 3 --out levers/cifar10

Each lever is the recipe with settings changed: a name of `LEVERS`, or settings such as
"diffusion.predict=v train.lr=2e-3". Their speeds are measured in turns first, and every run is as long as the machine
takes for the minutes given (--images N: as many images instead), its warm-up a tenth at most. They are trained in
slices of --slice seconds, one after the other, so that a machine that slows down does so for all. At the last two
snapshots (log spaced) images are drawn by each chain of --chains and compared with the training images: the Frechet
distance in a classifier of the store's labels, the mean over seeds, with its deviation; then the held-out loss at fixed
times and the estimated bound in bits per dimension. OUT/levers.json is written after each, and a command that was
killed goes on where it was. Prints a Markdown table, by images and by seconds.
"""

import argparse
import dataclasses
import re
import shutil
import statistics
import time
from pathlib import Path

from peers.judges import images_of, spread
from peers.kept import changed, earlier, given, write
from peers.tables import table as markdown
from unstir import Job, Run, load_recipe
from unstir.metrics.classifier import classifier_for
from unstir.metrics.measure import measure
from unstir.train.launch import open_data, open_run
from unstir.train.observer import Stop
from unstir.train.trainer import Trainer

V = {"diffusion.predict": "v"}
LEVERS = {
    "plain": {},
    "v": V,
    "x0": {"diffusion.predict": "x0"},
    "v, zero SNR": V | {"diffusion.zero_terminal_snr": True},
    "linear": {"diffusion.schedule": "linear"},
    "min-SNR": {"loss.weighting": "min_snr"},
    "v, min-SNR": V | {"loss.weighting": "min_snr"},
    "uniform times": {"loss.times": "uniform", "loss.times_options": {}},
    "laplace": {"loss.times": "laplace", "loss.times_options": {"scale": 0.5}},
    "v, laplace": V | {"loss.times": "laplace", "loss.times_options": {"scale": 0.5}},
    "v, normal": V | {"loss.times": "normal", "loss.times_options": {"scale": 2.0}},
    "v, EDM": V | {"loss.times": "normal", "loss.times_options": {"mean": 2.4, "scale": 2.4}},
    "perturbation": {"loss.input_perturbation": 0.1},
    "nearest of 4": {"loss.noise_choices": 4},
    "v, nearest of 4": V | {"loss.noise_choices": 4},
    "augment": {"train.augment": 0.12},
    "v, augment": V | {"train.augment": 0.12},
    "adam": {"train.optimizer": "adam"},
    "muon": {"train.optimizer": "muon"},
    "wsd": {"train.lr_schedule": "wsd"},
    "no dropout": {"model.dropout": 0.0},
    "dropout": {"model.dropout": 0.1},
    "batch 32": {"train.batch_size": 32},
    "batch 128": {"train.batch_size": 128},
}
"""What is changed of the recipe, by name: what the recipe has already changes nothing. All keep the recipe's rate."""
TURNS = 5
"""How often the speed of each is measured, in turns."""


class Slice(Stop):
    """Asks training to stop when its time is over and a step was taken, for a snapshot may take longer than a slice."""

    def __init__(self, state, seconds):
        self._state, self._first, self._end = state, state.step, time.monotonic() + seconds
        super().__init__()

    @property
    def signal(self):
        return 1 if time.monotonic() > self._end and self._state.step > self._first else None

    @signal.setter
    def signal(self, value):
        pass


def lasting(config, steps, part=10):
    """The config of so many steps, of which the warm-up takes no more than one in so many."""
    warmup = min(int(config.train.warmup.split()[0]), steps // part)
    return changed(config, {"train.length": f"{steps} steps", "train.warmup": f"{warmup} steps"})


def seconds_a_step(configs, store, folder, seconds):
    """The median time of a step of each config, measured in turns."""
    took = {name: [] for name in configs}
    trainers = {name: Trainer(open_run(c, folder / name, store), store) for name, c in configs.items()}
    for trainer in trainers.values():
        trainer.take_step()
    for _ in range(TURNS):
        for name, trainer in trainers.items():
            began, steps = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                trainer.take_step()
                steps += 1
            took[name].append((time.perf_counter() - began) / steps)
    shutil.rmtree(folder)
    return {name: statistics.median(each) for name, each in took.items()}


def train(runs, store, seconds):
    """Train all runs to their ends, a slice of each in turn."""
    left = dict(runs)
    while left:
        for name, run in list(left.items()):
            trainer = Trainer(run, store)
            if trainer.run(Slice(trainer.state, seconds)):
                del left[name]
                print(f"{name}: {run.length} steps trained", flush=True)


def judged(run, step, chain, store, classifier, options):
    """What is written down of a run at a step, drawn by a chain."""
    model = run.model(step=step)
    sets = []
    for seed in range(options.sets):
        job = Job(num=options.num, batch_size=options.batch_size, chain=dataclasses.replace(chain, seed=seed))
        sets.append(images_of(model, job))
    figure = measure(store, sets, [classifier])["classifier/fd"]
    line = next(line for line in run.metrics() if line["step"] >= step)
    return {
        "images": line["images"],
        "seconds": line["seconds"],
        "fd": figure.by_seed,
        "floor": figure.floor,
        **held_out(run, model, step),
    }


def held_out(run, model, step):
    """The held-out loss of eps at the fixed times, whatever the network predicts, and the bits per dimension."""
    line = next((line for line in run.held_out() if line["step"] == step), None)
    if line is None:
        return {}
    schedule, predict = model.process.schedule, run.config.diffusion.predict
    each = []
    for t, error in zip(line["times"], line["held_out"], strict=True):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        each.append(error * {"eps": 1.0, "v": alpha**2, "x0": (alpha / sigma) ** 2}[predict])
    return {"loss": statistics.mean(each), "bits": line["bits"]}


def table(rows):
    """A Markdown table, the best last snapshot first."""
    head = "lever", "seed", "chain", "images", "seconds", "FD-classifier", "held-out loss", "bits per dimension"
    body = []
    for row in sorted(rows, key=lambda row: (row["chain"], -row["share"], statistics.mean(row["fd"]))):
        cells = [row["lever"], row["seed"], row["chain"], row["images"], round(row["seconds"]), spread(row["fd"])]
        body.append([*map(str, cells), *(f"{row[key]:.4f}" if key in row else "" for key in ("loss", "bits"))])
    return markdown(head, body)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--levers", nargs="+", default=list(LEVERS), help=f"settings, or of {', '.join(LEVERS)}")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--images", type=int, default=0, help="train on so many images instead of for so many minutes")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each lever")
    parser.add_argument("--slice", type=float, default=30.0)
    parser.add_argument("--chains", default="ddim:50,dpmpp_2m_sde:20")
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--sets", type=int, default=2, help="sets of images drawn of each")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--store", default="")
    parser.add_argument("--set", nargs="*", default=[], help="settings for all levers, such as train.batch_size=32")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def begun(options, base, store):
    """What OUT/levers.json holds of these options, or a new beginning with the measured speeds."""
    path = options.out / "levers.json"
    about = {"recipe": options.recipe, "set": options.set, "minutes": options.minutes, "images": options.images}
    known = earlier(path, about, {"seconds_a_step": {}, "rows": []})
    missing = {n: changed(base, settings_of(n)) for n in options.levers if n not in known["seconds_a_step"]}
    if missing:
        known["seconds_a_step"] |= seconds_a_step(missing, store, options.out / "speeds", 2.0)
        write(path, known)
    return path, known


def settings_of(lever):
    """The settings that a lever changes."""
    return LEVERS[lever] if lever in LEVERS else given(lever.split())


def main():
    options = parsed()
    base = changed(load_recipe(options.recipe), given(options.set))
    if options.store:
        base = changed(base, {"data.source": options.store})
    options.out.mkdir(parents=True, exist_ok=True)
    store = open_data(base, options.out / "none")
    path, known = begun(options, base, store)
    runs = {}
    for name in options.levers:
        for seed in range(options.seeds):
            config = dataclasses.replace(changed(base, settings_of(name)), seed=seed)
            steps = options.images // config.train.batch_size or round(
                60 * options.minutes / known["seconds_a_step"][name]
            )
            config = lasting(config, steps)
            folder = options.out / (re.sub(r"[^\w.=-]+", "-", name) + f"-{seed}")
            runs[name, seed] = Run.open(folder) if folder.exists() else open_run(config, folder, store)
    train({f"{name}, seed {seed}": run for (name, seed), run in runs.items()}, store, options.slice)
    classifier = classifier_for(store)
    for (name, seed), run in runs.items():
        for step in run.saved_steps()[-2:]:
            for text in options.chains.split(","):
                sampler, steps = text.split(":")
                about = {"lever": name, "seed": seed, "chain": text, "share": round(step / run.length, 3)}
                if any(about.items() <= row.items() for row in known["rows"]):
                    continue
                chain = run.chain().changed(sampler=sampler, steps=int(steps))
                known["rows"].append(about | judged(run, step, chain, store, classifier, options))
                write(path, known)
    print(table(known["rows"]))


if __name__ == "__main__":
    main()
