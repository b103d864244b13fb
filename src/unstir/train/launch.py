"""From a config to a trained run: its data packed, its folder made or continued.

Everything that can be refused is refused before the run's folder is made or changed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from unstir.data import SPLITS, Store, is_store, pack, verify_once
from unstir.data.disk import usable_path
from unstir.data.images import COLOUR_LOST
from unstir.data.source import after_train
from unstir.distributed import processes
from unstir.distributed.join import joined
from unstir.errors import UserError
from unstir.progress import Say, Showing, silently, unsaid
from unstir.runs import build, checkpoint, run
from unstir.runs.card import DataCard
from unstir.runs.config import Config
from unstir.runs.loading import check_initial, compare
from unstir.runs.memory import check_images, check_weights
from unstir.runs.run import Run, is_run
from unstir.runs.sections import DataConfig
from unstir.runs.timetable import newest_grid
from unstir.train import parallel
from unstir.train.observer import Observer, Stop
from unstir.train.sentences import conclusion, introduction
from unstir.train.trainer import Trainer
from unstir.train.trial import how_to_compile


@dataclass(frozen=True)
class Training:
    """Where `train_run` left a ``run``: at this ``step``, ``finished`` or not, and what was made or is to do."""

    run: Run
    step: int
    finished: bool
    conclusion: tuple[str, ...]


def train_run(
    config: Config,
    folder: str | Path,
    *,
    observer: Observer | None = None,
    stop: Stop | None = None,
    say: Say = unsaid,
    showing: Showing = silently,
    data_of: Run | None = None,
) -> Training:
    """Train the run in ``folder``, made from ``config`` or continued, until it is finished or ``stop`` is asked for.

    ``say`` is called with what a person should know of the data, ``showing`` opens a display while images are packed.
    A new run learns from the data of the run ``data_of``, where one is given. Several processes that torchrun started
    train one run together, and the first of them alone writes and speaks (`distributed`).
    Raises UserError as `open_data` and `open_run`, before the run's folder is made or changed.
    """
    with joined(config.train.device):
        if not processes.is_first():
            observer, say, showing = Observer(), unsaid, silently
        run, store = _opened(config, Path(folder), data_of, say, showing)
        lock = run.lock() if processes.is_first() else nullcontext()
        with lock, stop or Stop(install=False) as stop, observer or Observer() as observer:
            if processes.is_first():
                run.tidy()
            processes.follow(stop)
            trainer = Trainer(run, store, observer)
            trainer.start()  # which says what was damaged, before the introduction; run() starts no second time
            observer.say(introduction(run, trainer.state))
            done = trainer.finished
            finished = done or trainer.run(stop)
    step = trainer.state.step
    if done:
        return Training(run, step, True, tuple(conclusion(run, step).splitlines()))
    stopped = f"stopped at step {step} of {run.length}; all is saved, the same command continues"
    return Training(run, step, finished, _made(run) if finished else (stopped,))


def _opened(config: Config, folder: Path, data_of: Run | None, say: Say, showing: Showing) -> tuple[Run, Store]:
    """The run and its data, made ready by the first process for all, which must have been asked alike."""
    parallel.check_asked(config)
    if not processes.is_first():
        return parallel.shared()
    with showing("packing", "images") as progress:
        store = open_data(config, folder, progress, data_of)
    if store.refused:
        say(f"{len(store.refused)} files were refused; unstir data inspect {store.path} lists them")
    if lost := sum(note.count for note in store.notes if note.text == COLOUR_LOST):
        keep = "--data.channels 3 --model.in_channels 3"
        say(f"{lost} images had colours, which {store.path} has not; a new run with {keep} keeps them")
    return parallel.shared((open_run(config, folder, store, say), store))


def _made(run: Run) -> tuple[str, ...]:
    curves = [path for path in (run.path / "curves.png", run.path / "losses.png") if path.exists()]
    return (
        f"samples  {newest_grid(run)}",
        f"curves   {', '.join(map(str, curves))}",
        f"data     {run.config.data.store}",
    )


def open_data(
    config: Config, out: Path, progress: Callable[[int, int], None] | None = None, data_of: Run | None = None
) -> Store:
    """The packed store that a run in folder ``out`` is trained on, packed now where it is not there yet.

    A run that exists keeps to its store, checked by its content hash, and so does a new one to that of the run
    ``data_of``; the source is then needed only where the store has gone. Raises UserError for every mistake in the
    data, for a folder that cannot be the run's, for a device or initial weights that are not there, for a network
    beyond the memory, and where the data is not what that run began with.
    """
    check_weights(config, build.device(config.train.device))
    if size := config.data.size:
        _check_sides(config, size, size)
    old = Run.open(out) if is_run(out) else data_of
    if is_run(out) and old is not None and old.config.imported:
        raise UserError(
            f"{out} was imported ({old.config.imported}) and has no training to continue; to go on from its "
            f"weights: {old.going_on}"
        )
    if not is_run(out):
        run.check_free(out)
        check_initial(config)
    if old is not None:
        if config.data.store not in ("", old.config.data.store) and not is_store(config.data.store):
            raise UserError(f"data.store={config.data.store} is no packed store; leave it out, or name one")
        store = _store_of(config.data, old, progress)
        if store.content_hash != old.data.content_hash:
            raise UserError(
                f"{store.path} is not the data that {old.path} began with (content hash {store.content_hash[:12]}..., "
                f"the run's is {old.data.content_hash[:12]}...); {_names_store(old)}, or start another run"
            )
    else:
        store = _store_of(config.data, None, progress)
    verify_once(store)
    return store


def store_path(data: DataConfig) -> Path:
    """Where the packed data of these settings is kept: data.store, or data/NAME below the current folder.

    What comes with the package or is published under a name is data/digits or data/cifar10. A path of the user's, or
    another selection of those, has the first digits of a hash of its settings behind its name.
    """
    if data.store:
        return Path(data.store)
    name = usable_path(data.source).resolve().name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
    usual = DataConfig(source=data.source, channels=1 if data.source == "digits" else 3, flip=data.flip)
    if data == usual and data.source in ("digits", "cifar10"):
        return Path("data") / name
    source = data.source if data.source in ("digits", "cifar10") else str(Path(data.source).resolve())
    settings = [source, data.size, data.channels, data.held_out, data.sha256]
    return Path("data") / f"{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]}"


def open_run(config: Config, out: Path, store: Store, say: Say = unsaid) -> Run:
    """The run in folder ``out``: made from ``config``, or, where there is one, continued with what may change.

    ``say`` is called with how the network of a long training is compiled. Raises UserError where the settings do not
    fit the data or each other, and where they change what a run keeps.
    """
    if is_run(out):
        return _continued(Run.open(out), config, store)
    _check_fit(config, store)
    card = DataCard(store.shape, store.classes, {split: store.count(split) for split in SPLITS}, store.content_hash)
    draft = Run(out, config, card)
    train, warmup = config.train, draft.steps_in(config.train.warmup)
    if warmup > draft.length:
        raise UserError(
            f"train.warmup={train.warmup} is longer than the whole run, train.length={train.length} ({draft.length} "
            f'steps), which would end before its rate is reached; set --train.warmup "{draft.length // 10} steps"'
        )
    if train.lr_schedule != "constant" and train.lr_period == "0 steps":
        period = draft.length - warmup if train.lr_schedule == "cosine" else draft.length // 5
        train = dataclasses.replace(train, lr_period=f"{max(period, 1)} steps")
    ends = warmup + draft.steps_in(train.lr_period)
    if train.lr_schedule == "cosine" and draft.length > ends:
        raise UserError(
            f"train.lr_period={train.lr_period} ends at step {ends} of {draft.length}, and the rest would train at a "
            "rate of 0; leave it out for the whole length, or give a longer one"
        )
    if train.lr_schedule == "wsd" and draft.length < ends:
        raise UserError(
            f"train.lr_period={train.lr_period} of fall and train.warmup={train.warmup} are longer than the run of "
            f"{draft.length} steps; leave lr_period out for a fifth of the run, or give a shorter one"
        )
    train = dataclasses.replace(train, dtype=build.dtype_name(train.dtype, build.device(train.device)))
    data = dataclasses.replace(config.data, store=str(store.path.resolve()))
    config = dataclasses.replace(config, train=train, data=data, imported="")
    train = dataclasses.replace(train, compile=how_to_compile(Run(out, config, card), store, say))
    return Run.create(dataclasses.replace(config, train=train), out, card)


def _continued(old: Run, asked: Config, store: Store) -> Run:
    """The old run with the settings that may change taken from ``asked``; what was resolved at its start stays."""
    saved = old.config
    train = dataclasses.replace(
        asked.train,
        dtype=saved.train.dtype if asked.train.dtype == "auto" else asked.train.dtype,
        compile=saved.train.compile if asked.train.compile == "auto" else asked.train.compile,
        lr_period=saved.train.lr_period if asked.train.lr_period == "0 steps" else asked.train.lr_period,
    )
    data = dataclasses.replace(asked.data, store=str(store.path.resolve()))
    asked = dataclasses.replace(asked, train=train, data=data)
    changed = compare(saved, asked)
    new = Run(old.path, dataclasses.replace(asked, recipe=saved.recipe), old.data)
    if new.length < max((step for step, _ in checkpoint.listed(old.checkpoints)), default=0):
        return new  # further than asked: nothing is left to do, and nothing is changed
    if "train.length" in changed and train.lr_schedule == "cosine":
        ends = new.steps_in(train.warmup) + new.steps_in(train.lr_period)
        if new.length > ends and new.length > old.length:
            raise UserError(
                f"train.length={train.length} goes beyond step {ends}, where the cosine of train.lr is 0; give the "
                f'period its new length too: --train.lr_period "{new.length - new.steps_in(train.warmup)} steps"'
            )
    if changed:
        with old.lock():  # another process may be training it with the old ones
            new.save_config()
            new.record("changed", **changed)
    return new


def _names_store(run: Run) -> str:
    """How to say where the data of a run is now."""
    return f"name the folder of that data with unstir train --out {run.path} {after_train('out', 'FOLDER')}"


def _store_of(data: DataConfig, old: Run | None, progress: Callable[[int, int], None] | None) -> Store:
    """The store of ``data``, else that of the run ``old``, else the source if it is one, else the source packed."""
    places = [] if old is None else [data.store, old.config.data.store]
    for place in (*places, data.source):
        if place and is_store(place):
            return Store.open(place)
    if old is not None and data.source not in ("digits", "cifar10") and not usable_path(data.source).exists():
        raise UserError(
            f"{places[-1]}: the packed data of {old.path} is not there any more, nor is its source {data.source}; "
            f"{_names_store(old)}"
        )
    if not data.source:
        raise UserError("data.source is empty, as an imported run has it; name images with --data.source")
    return pack(
        data.source,
        store_path(data),
        size=data.size or None,
        channels=data.channels,
        held_out=data.held_out,
        sha256=data.sha256 or None,
        progress=progress,
        spelling=after_train,
    )


def _check_fit(config: Config, store: Store) -> None:
    channels, height, width = store.shape
    size, classes, batch = config.data.size, config.model.num_classes, config.train.batch_size
    if channels != config.data.channels:
        raise UserError(
            f"{store.path} has {channels} channels, data.channels is {config.data.channels}; "
            f"set --data.channels {channels} --model.in_channels {channels}"
        )
    if size and (height, width) != (size, size):
        raise UserError(f"{store.path} holds {height}x{width} images, data.size is {size}; leave it out, or pack anew")
    _check_sides(config, height, width)
    check_images(config, height, width, build.device(config.train.device))
    if classes and classes != len(store.classes):
        raise UserError(
            f"model.num_classes={classes}, but {store.path} has {len(store.classes)} classes; "
            f"set it to {len(store.classes)}" + ("" if store.classes else ", for the data has no labels")
        )
    if batch > store.count("train"):
        raise UserError(f"train.batch_size={batch} exceeds the {store.count('train')} training images: lower it")


def _check_sides(config: Config, height: int, width: int) -> None:
    build.check_own(config, height, width)
    multiple = config.model.multiple
    if height % multiple or width % multiple:
        raise UserError(
            f"images of {height}x{width} were given, but {len(config.model.mults)} levels need sides that are "
            f"multiples of {multiple}; set --data.size, or shorten --model.mults"
        )
