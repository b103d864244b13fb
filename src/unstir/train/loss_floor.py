"""The floor of a run's loss (`theory.loss_floor`), kept in RUN/loss_floor.json with all that it was computed from.

It is asked for at the times of held_out.jsonl and of the very training images whose loss is followed there, with noise
of its own, in the unit of what the network predicts: an error of x_0 is c_out times the error of the network's output.
What weighs the loss by time moves no floor. A file that does not fit the run's settings is not used.
"""

import math
from dataclasses import asdict
from typing import Any

import torch

from unstir import randomness
from unstir.data import Store
from unstir.diffusion.times import middles
from unstir.randomness import Key
from unstir.runs import build
from unstir.runs.files import write_text
from unstir.runs.kinds import check, is_number
from unstir.runs.lines import decode, encode
from unstir.runs.run import Run
from unstir.theory.loss_floor import LossFloor, least_errors
from unstir.theory.parameterization import PARAMETERIZATIONS

FILE = "loss_floor.json"
NOISES = 4  # drawn for each image, where that is not too much work
WORK = 1e11  # floating-point operations that training spends on it: some 5 s of a core
OF_WEIGHT = 200  # what a posterior weight costs, exponential and sums, in such operations
FEWEST = 16  # images; where WORK pays for fewer, it is left to the report


def keep_floor(run: Run, store: Store, at_any_cost: bool = False) -> None:
    """Compute and keep the floor where none is kept that fits, and the training loss is followed.

    More work than `WORK` is done only ``at_any_cost``, and then of `FEWEST` images. Raises UserError where the file
    cannot be written. ``store`` is the run's, verified.
    """
    watched = min(run.config.log.held_out_images, store.count("train"))
    if watched < 2 or read_floor(run) is not None:
        return
    times = middles(run.config.diffusion.T, run.config.log.held_out_times)
    entries = store.count("train") * (2 if run.config.data.flip else 1)
    affordable = int(WORK / (entries * (4 * math.prod(store.shape) + OF_WEIGHT * len(times))))
    if affordable < FEWEST and not at_any_cost:
        return
    num = min(watched, max(affordable, FEWEST))
    found = _measured(run, store, times, num, noises=max(1, min(NOISES, affordable // num)))
    write_text(run.path / FILE, encode({"of": _origin(run), **asdict(found)}) + "\n")


def read_floor(run: Run) -> LossFloor | None:
    """The floor that is kept; None where there is none, it is damaged, or it was computed from something else."""
    try:
        values = decode((run.path / FILE).read_bytes())
        check(values, dict.fromkeys(("times", "values", "errors", "of_images"), _are_numbers))
    except (OSError, ValueError):
        return None
    if values.pop("of", None) != _origin(run) or values["times"] != _origin(run)["times"]:
        return None
    found = LossFloor(**{name: tuple(each) for name, each in values.items()})
    return found if len(found.values) == len(found.errors) == len(found.times) else None


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def _origin(run: Run) -> dict[str, Any]:
    """All that decides the floor, but for how many images and noises were paid for."""
    config = run.config
    return {
        "version": 1,
        "data": run.data.content_hash,
        "diffusion": asdict(config.diffusion),
        "mirrored": config.data.flip,
        "labels": config.model.num_classes > 0,
        "seed": config.seed,
        "images": config.log.held_out_images,
        "times": list(middles(config.diffusion.T, config.log.held_out_times)),
    }


def _measured(run: Run, store: Store, times: tuple[int, ...], num: int, noises: int) -> LossFloor:
    """The floor from the first ``num`` images of those that are followed, each under so many ``noises``."""
    config, schedule = run.config, build.schedule(run.config.diffusion)
    scales = [(schedule.alpha(t), schedule.sigma(t)) for t in times]
    index = randomness.Order(config.seed, "watched train", 0, store.count("train"))[:num]
    eps = [randomness.normal(Key(config.seed, "loss floor", i, index), tuple(store.shape)) for i in range(noises)]
    labels = store.labels("train") if config.model.num_classes else None
    snr = [(alpha / sigma) ** 2 for alpha, sigma in scales]
    errors = least_errors(store.images("train"), index.repeat(noises), torch.cat(eps), snr, labels, config.data.flip)
    c_out = PARAMETERIZATIONS[config.diffusion.predict].c_out
    unit = torch.tensor([c_out(*scale) for scale in scales], dtype=torch.float64).square()
    of_images = errors.view(noises, num, len(times)).mean(0) / unit
    columns = of_images.mean(0), of_images.std(0) / math.sqrt(num), of_images.mean(1)
    return LossFloor(times, *(tuple(each.tolist()) for each in columns))
