"""The recipe `photos`: settings of a training on a person's own photographs, for the minutes there are.

`chosen` is a pure function of the number of images, the minutes, and the measured speeds of networks of several sizes.
After it the run is as any other.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from unstir.data.packing import origin_of, pack
from unstir.data.source import Options
from unstir.data.store import Store, is_store
from unstir.errors import UserError
from unstir.progress import counted, shown_by, sides, written
from unstir.runs import recipes, toml
from unstir.runs.card import DataCard
from unstir.runs.config import Config, steps_in
from unstir.runs.initial import check_initial
from unstir.runs.named import PREFIX, names
from unstir.runs.run import Run
from unstir.runs.sections import DataConfig
from unstir.train.fits import trial

logger = logging.getLogger(__name__)

SHIPPED = "cifar10-small"  # the model that a network begins with where it fits
BATCH, WARMUP = 32, 200  # images of a batch, and batches of the warm-up of a long run
ENOUGH = 60_000  # images seen by which scenes are there; a larger size is for runs that see as many
MANY = 5_000  # training images from which on they are not augmented
SHARE = 0.9  # of the minutes that is left for steps and snapshots
SNAPSHOT = 900  # images trained on in the time of a grid, its losses and the search for copies
EXPECTED = {20_000: "colours and soft patches", 100_000: "grounds and horizons", math.inf: "rough objects"}
"""By the images seen, from scratch at 32x32."""


class Size(NamedTuple):
    """The side of the images in pixels, or height and width as "24x40"; and the network's channels."""

    side: int | str
    channels: int


SIZES = Size(32, 32), Size(32, 64), Size(64, 64), Size(64, 128)  # by what a step costs


def snapshots(minutes: float, speed: float) -> int:
    """How many snapshots after the first, 1..6, take a quarter of the minutes at a ``speed`` in images a second."""
    return min(max(int(60 * minutes * speed / SNAPSHOT / 4), 1), 6)


def seen(minutes: float, speed: float) -> int:
    """How many images a training of so many minutes sees at a ``speed`` in images a second, beside its snapshots."""
    possible = SHARE * 60 * minutes * speed
    return max(int(max(possible - SNAPSHOT * (1 + snapshots(minutes, speed)), possible / 2)), 1)


def chosen(images: int, minutes: float, sizes: Iterable[Size], speed_of: Callable[[Size], float]) -> dict[str, Any]:
    """Settings by dotted key for so many training ``images``, given the images a second of sizes, the cheapest first.

    The size is the last before one that does not see `ENOUGH` images in the minutes, or the first.
    """
    size, *larger = sizes
    speed = speed_of(size)
    for other in larger if seen(minutes, speed) >= ENOUGH else ():
        if seen(minutes, its_speed := speed_of(other)) < ENOUGH:
            break
        size, speed = other, its_speed
    length = seen(minutes, speed)
    return {
        "data.size": size.side,
        "model.channels": size.channels,
        "train.batch_size": min(BATCH, images),
        "train.augment": 0.12 if images < MANY else 0.0,
        "train.length": f"{length} images",
        "train.warmup": f"{min(WARMUP * BATCH, length // 10)} images",
        "grids.log_spaced": snapshots(minutes, speed),
    }


def for_minutes(config: Config, minutes: float, typed: Collection[str] = (), by_class: bool = False) -> Config:
    """The ``config`` of a new run with what `chosen` sets, for so many minutes on this machine; logs what to expect.

    Settings that are ``typed``, or differ from the recipe's, stay; steps are measured with them. Raises UserError where
    the source has no images or the settings do not fit.
    """
    if not 0 < minutes < 1e5:
        raise UserError("minutes", minutes, "must be more than 0 and less than 100000")
    recipe = toml.flat(recipes.load_recipe(recipes.PHOTOS))
    fixed = {*typed, *(key for key, value in toml.flat(config).items() if value != recipe.get(key))}
    places = [path for path in (config.data.store, config.data.source) if path and is_store(path)]
    store = Store.open(places[0]) if places else None
    images = _count(config.data) if store is None else store.count("train")
    init = "" if by_class or "train.init" in fixed else _shipped(config)
    side: int | str = config.data.size if "data.size" in fixed else 0
    if store is not None:
        side = written(store.shape[1:])
    width = config.model.channels if init or {"model.channels", "train.init"} & fixed else 0
    sizes = dict.fromkeys(Size(side or size.side, width or size.channels) for size in SIZES)
    values = {**chosen(images, minutes, sizes, partial(_speed, config)), "train.init": init}
    config = _changed(config, {key: value for key, value in values.items() if key not in fixed})
    _introduce(config, images, minutes)
    return config


def _count(data: DataConfig) -> int:
    """How many training images the source has, those that packing will refuse too."""
    if not data.source:
        raise UserError("data.source", "", "names no images", "name the folder of your photographs")
    given = sides(data.size), data.channels, data.held_out, data.sha256 or None, Path("data")
    source = origin_of(Options(data.source, *given, options=data.options))
    source.stamp()  # which finds the images
    with TemporaryDirectory() as staging:
        return source.plan(Path(staging)).counts["train"]


def _shipped(config: Config) -> str:
    """The model of the package that a network of these settings can begin with; "" where none fits."""
    if SHIPPED not in names():
        return ""
    init = f"{PREFIX}{SHIPPED}"
    try:
        check_initial(_changed(config, {"train.init": init}))
    except UserError:
        return ""
    return init


def _speed(config: Config, size: Size) -> float:
    """Images a second of training steps, which are taken on noise and thrown away."""
    batch = config.train.batch_size
    shape = batch, config.data.channels, *(sides(size.side) or ())
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    plain = {"model.num_classes": 0, "train.condition_dropout": 0.0, "grids.guidance": 1.0, "data.condition": ""}
    plain |= {"data.condition_options": {}, "model.channels": size.channels}
    plain |= {"train.lr_schedule": "constant", "train.lr_period": "0 steps"}
    with TemporaryDirectory() as folder, shown_by(lambda what, unit: nullcontext(lambda *_: None)):
        store, ends = pack(noise, Path(folder) / "store", channels=config.data.channels, held_out=0.0), list[float]()
        run = Run(Path(folder) / "run", _changed(config, plain), DataCard.of_store(store))
        trainer = trial(run, store, batch, batch)
        for _ in range(3):  # the first is slow
            trainer.take_step()
            trainer.state.window.tolist()  # which waits for the device
            ends.append(time.perf_counter())
    return 2 * batch / (ends[2] - ends[0])


def _changed(config: Config, values: Mapping[str, Any]) -> Config:
    sections = dict[str, dict[str, Any]]()
    for key, value in values.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    new = {name: replace(getattr(config, name), **changes) for name, changes in sections.items()}
    return replace(config, **new)


def _introduce(config: Config, images: int, minutes: float) -> None:
    data, train = config.data, config.train
    total = train.batch_size * steps_in(train.length, max(images // train.batch_size, 1), train.batch_size)
    logger.info(
        f"chosen for {counted(images, 'image')} and {minutes:g} minutes: images of side {data.size}, "
        f"{config.model.channels} channels, {train.length}, which are {total / images:,.0f} passes"
    )
    expected = next(text for most, text in EXPECTED.items() if total < most)
    begun = f"it begins with the weights of {train.init}, of which the first grid is"
    logger.info(begun if train.init else f"expect {expected} at the end")
