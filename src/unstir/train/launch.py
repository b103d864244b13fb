"""From a config to a run that can be trained: its data packed, its folder made or taken up again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from unstir.data import Store, is_store, pack
from unstir.errors import UserError
from unstir.runs import build, run
from unstir.runs.config import Config, DataConfig
from unstir.runs.run import DataCard, Run, is_run


def open_data(config: Config, out: Path, progress: Callable[[int, int], None] | None = None) -> Store:
    """The packed store that a run in folder ``out`` learns from, packed now where it is not there yet.

    A run that exists keeps to its store, checked by its content hash; the source is then needed only where the store
    has gone. Raises UserError for every mistake in the data, and where the data is not what the run began with.
    """
    wanted = Run.open(out).data.content_hash if is_run(out) else None
    place = store_path(config.data)
    if wanted and is_store(place):
        store = Store.open(place)
    elif is_store(config.data.source):
        store = Store.open(config.data.source)
    else:
        store = _pack(config.data, place, progress)
    if wanted and store.content_hash != wanted:
        raise UserError(
            f"{store.path} is not the data that {out} began with (content hash {store.content_hash[:12]}..., "
            f"the run's is {wanted[:12]}...); give the store of before with --data.store, or start another run"
        )
    return store


def store_path(data: DataConfig) -> Path:
    """Where the packed data of these settings is kept: data.store, or data/NAME below the current folder."""
    if data.store:
        return Path(data.store)
    name = Path(data.source).name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
    size = f"-{data.size}" if data.size else ""
    return Path("data") / f"{name}{size}{'-grey' if data.channels == 1 and name != 'digits' else ''}"


def open_run(config: Config, out: Path, store: Store) -> Run:
    """The run in folder ``out``: made from ``config``, or, where there is one, taken up again with what may change.

    Raises UserError where the network does not fit the data, and where the config changes what a run keeps.
    """
    if is_run(out):
        return _take_up(Run.open(out), config)
    _check_fit(config, store)
    card = DataCard(
        store.shape, store.classes, {split: store.count(split) for split in ("train", "held_out")}, store.content_hash
    )
    draft = Run(out, config, card)
    train = config.train
    if train.lr_schedule == "cosine" and train.lr_period == "0 steps":
        left = max(draft.length - draft.steps_in(train.warmup), 1)
        train = dataclasses.replace(train, lr_period=f"{left} steps")
    train = dataclasses.replace(train, dtype=build.dtype_name(train.dtype, build.device(train.device)))
    data = dataclasses.replace(config.data, store=str(store.path))
    return Run.create(dataclasses.replace(config, train=train, data=data), out, card)


def _take_up(old: Run, asked: Config) -> Run:
    """The old run with the settings that may change taken from ``asked``; what was resolved at its start stays."""
    saved = old.config
    train = dataclasses.replace(
        asked.train,
        dtype=saved.train.dtype if asked.train.dtype == "auto" else asked.train.dtype,
        lr_period=saved.train.lr_period if asked.train.lr_period == "0 steps" else asked.train.lr_period,
    )
    data = dataclasses.replace(asked.data, store=asked.data.store or saved.data.store)
    asked = dataclasses.replace(asked, train=train, data=data, recipe=saved.recipe)
    new = Run(old.path, asked, old.data)
    if changed := run.compare(saved, asked):
        with old.lock():  # another process may be training it with the old ones
            new.save_config()
            new.record("changed", **changed)
    return new


def _pack(data: DataConfig, place: Path, progress: Callable[[int, int], None] | None) -> Store:
    return pack(
        data.source,
        place,
        size=data.size or None,
        channels=data.channels,
        held_out=data.held_out,
        sha256=data.sha256 or None,
        progress=progress,
    )


def _check_fit(config: Config, store: Store) -> None:
    channels, height, width = store.shape
    if channels != config.data.channels:
        raise UserError(
            f"{store.path} has {channels} channels, data.channels is {config.data.channels}; "
            f"set --data.channels {channels} --model.in_channels {channels}"
        )
    halvings = len(config.model.mults) - 1
    multiple = 2**halvings
    if height % multiple or width % multiple:
        raise UserError(
            f"images of {height}x{width} do not halve {halvings} times: for {halvings + 1} levels "
            f"both sides must be multiples of {multiple}; set --data.size, or shorten --model.mults"
        )
    classes = config.model.num_classes
    if classes and classes != len(store.classes):
        raise UserError(
            f"model.num_classes={classes}, but {store.path} has {len(store.classes)} classes; "
            f"set it to {len(store.classes)}" + ("" if store.classes else ", for the data has no labels")
        )
