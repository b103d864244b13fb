"""The shipped colour models, trained again from nothing: `cifar10-small`, then `cifar10-fast`.

    python benchmarks/reproduce.py data/cifar reproduced              # 25 hours on two CPU cores
    python benchmarks/reproduce.py data/cifar tried --scale 0.001    # a thousandth of each training

STORE is CIFAR-10, packed by `unstir data pack`. `cifar10-small` is the last of three trainings,
OUT/first, OUT/second and OUT/third. Each begins with the averaged weights of the one before.
`cifar10-fast` is OUT/fast, distilled from OUT/third. Settings come from the config.toml of the
shipped model. `TRAININGS` has what the first two changed, as the models' config.toml had it at
commits 232a6624 and ed83defc. All these settings still exist. Killed at any time, the same command
goes on. At the end it prints the commands that make the models' folders with their cards.

The weights will not have the same bits. Torch, the machine and this program have changed since.
Then each training began with weights rounded to bfloat16, here with float32. The shipped models
learned from images that had been encoded as JPEG (see `content_hash` in data.json). From the same
images, figures should agree within their errors.
"""

import logging
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from pathlib import Path

from peers.kept import changed
from unstir import Config, Run, UserError, load_recipe, train_run
from unstir.console import TrainingDisplay
from unstir.jobs.process import Signals
from unstir.runs.named import FOLDER as MODELS
from unstir.runs.toml import is_run

FIRST = {"length": "6000000 images", "lr": 0.0015, "lr_period": "1000000 images"}
SECOND = {"length": "2200000 images", "lr": 0.0008, "lr_period": "1600000 images"}
FAST = {"lr_period": "0 steps"}  # unstir lets the rate fall to the end of the run
TRAININGS: dict[str, tuple[str, int, Mapping[str, object]]] = {
    "first": ("cifar10-small", 25_154, FIRST),
    "second": ("cifar10-small", 33_878, SECOND),
    "third": ("cifar10-small", 0, {}),
    "fast": ("cifar10-fast", 0, FAST),
}
"""The model that has a training's settings, the step where it was stopped (0: its end), and what it
changes in [train]. The first was stopped before its rate fell, for at the constant rate the
held-out loss rose after 1.0 million images; the second was stopped while its rate fell."""


class Until(TrainingDisplay):
    """Shows a training and stops it after the step ``last``."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.stop, self._last = Signals(), last

    def step(self, step: int) -> None:
        super().step(step)
        if step == self._last:
            self.stop.request(0)


def scaled(config: Config, scale: float) -> Config:
    """The config with the lengths of [train] multiplied by ``scale`` and rounded down."""
    spans = {}
    for name in ("length", "warmup", "lr_period"):
        number, unit = getattr(config.train, name).split()
        spans[f"train.{name}"] = f"{int(int(number) * scale)} {unit}"
    return changed(config, spans)


def settings(name: str, store: Path, init: str, scale: float) -> Config:
    """The config of a training on the ``store`` that begins with weights of the run ``init``."""
    model, _, changes = TRAININGS[name]
    values = {f"train.{key}": value for key, value in changes.items()}
    values |= {"train.init": init, "data.source": str(store), "data.store": str(store)}
    return scaled(changed(load_recipe(str(MODELS / model / "config.toml")), values), scale)


def train(name: str, out: Path, config: Config, scale: float) -> None:
    """Train the run OUT/NAME, or go on with it, unless it is done."""
    last, folder = int(TRAININGS[name][1] * scale), out / name
    if last and is_run(folder) and last in Run.open(folder).saved_steps():
        return
    until = Until(last)
    training = train_run(config, folder, observer=until, stop=until.stop)
    if until.stop.signal:
        raise SystemExit(until.stop.status)
    print(f"{folder}: step {training.step}")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="CIFAR-10, packed")
    parser.add_argument("out", type=Path, help="folder of the four runs")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the lengths")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    init = ""
    try:
        for name in TRAININGS:
            config = settings(name, options.store, init, options.scale)
            train(name, options.out, config, options.scale)
            init = str(options.out / name)
    except UserError as error:
        raise SystemExit(f"reproduce.py: {error}") from None
    for name in ("third", "fast"):
        words = f"{options.out / name} {TRAININGS[name][0]} --commit COMMIT"
        print(f"python benchmarks/ship.py {words}")


if __name__ == "__main__":
    main()
