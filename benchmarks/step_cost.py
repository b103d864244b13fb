"""What a training step spends on data and on randomness, as shares of the step.

Usage: python benchmarks/step_cost.py [RECIPE ...] [--batch N] [--rounds N]

For each recipe (default: digits and cifar10-small) a trainer is built on random images of the recipe's shape. Whole
steps, and then the data path, the draws of times and noise, and the dropout masks by themselves, are timed in turn in
one process; the medians and their shares are printed.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unstir import randomness
from unstir.data import pack
from unstir.randomness import Key
from unstir.runs import recipes
from unstir.train.launch import open_run
from unstir.train.trainer import Trainer


def trainer_of(name: str, batch: int, folder: Path) -> Trainer:
    config = recipes.load_recipe(name)
    if config.data.source == "digits":
        store = pack("digits", folder / "store", channels=1)
    else:
        images = folder / "images"
        images.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (max(256, batch), 32, 32, 3), dtype=np.uint8)
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(images / f"{i:04d}.png")
        store = pack(images, folder / "store", held_out=0.0)
    train = dataclasses.replace(config.train, batch_size=batch or config.train.batch_size)
    config = dataclasses.replace(config, train=train)
    return Trainer(open_run(config, folder / "run", store), store)


def parts(trainer: Trainer) -> dict[str, object]:
    slots, seed = trainer._slots, 0
    config = trainer._run.config
    shape = trainer._run.data.shape
    blank = torch.zeros(len(slots), *shape)

    def draws() -> None:
        randomness.integers(Key(seed, "time", trainer.state.step, slots), 1, config.diffusion.T)
        randomness.normal(Key(seed, "noise", trainer.state.step, slots), shape)

    def masks() -> None:
        if config.model.dropout:
            trainer.state.net._dropout_masks(blank, Key(seed, "dropout", trainer.state.step, slots))

    return {
        "step": trainer.take_step,
        "data": lambda: trainer._batches(trainer.state.step, slots, slice(None)),
        "times and noise": draws,
        "dropout masks": masks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["digits", "cifar10-small"])
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    for name in arguments.recipes:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(name, arguments.batch, Path(folder))
            measured: dict[str, list[float]] = {}
            for i in range(arguments.rounds + 1):
                for part, call in parts(trainer).items():
                    began = time.perf_counter()
                    call()
                    if i:
                        measured.setdefault(part, []).append(time.perf_counter() - began)
        medians = {part: statistics.median(times) for part, times in measured.items()}
        print(
            f"{name}, batch {len(trainer._slots)}, {torch.get_num_threads()} threads, {trainer._run.config.train.dtype}"
        )
        for part, seconds in medians.items():
            print(f"  {part:16} {seconds * 1e3:9.2f} ms {seconds / medians['step']:7.2%}")


if __name__ == "__main__":
    main()
