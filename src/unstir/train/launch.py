"""From a config to a trained run: its data packed, its folder made or continued.

Everything that can be refused is refused before the run's folder is made or changed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import unstir
from unstir import randomness
from unstir.data.disk import usable_path
from unstir.data.embedded import EMBEDDED
from unstir.data.packing import packed, remarks
from unstir.data.source import NAMES, Options, Plan, is_named
from unstir.data.store import Store, is_store
from unstir.errors import UserError, quoted, within_memory
from unstir.group import Alone
from unstir.progress import counted, sides, sized, written
from unstir.runs import build, checkpoint, resources, toml
from unstir.runs.card import DataCard
from unstir.runs.config import Config
from unstir.runs.initial import check_initial, check_teacher, is_pinned, pinned
from unstir.runs.run import Run, check_free
from unstir.runs.sections import DataConfig
from unstir.runs.stores import check_data, with_store
from unstir.runs.timetable import check_changed, newest_grid, settled
from unstir.runs.toml import is_run
from unstir.train.fits import fitting
from unstir.train.observer import Observer, Stop, tracked
from unstir.train.state import State
from unstir.train.trainer import Trainer

logger = logging.getLogger(__name__)

FEW, OFTEN = 1000, 100  # training images, and passes over them, at which a network begins to draw copies
LOWER = "train.micro_batch", "model.channels"  # a run goes on with less of the first


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
    data_of: Run | None = None,
    by_class: bool = False,
    group: Alone = Alone(),
) -> Training:
    """Train the run in ``folder``, made from ``config`` or continued, until it is finished or ``stop`` is asked for.

    A new run learns from the data of the run ``data_of``, where one is given. ``by_class`` sets model.num_classes to
    the number of classes in the data and, where it is 0, train.condition_dropout to 0.1, for guidance. The processes of
    a ``group`` train one run together, and the first of them alone writes (`unstir.torchrun_group`).
    Raises UserError as `open_data`, `open_run` and `tracked`, before the run's folder is made or changed.
    """
    observer = tracked(observer or Observer(), config.log, Path(folder)) if group.is_first else Observer()
    run, store = _opened(group, config, Path(folder), data_of, by_class)
    return _trained(group, run, store, observer, stop or Stop())


def _trained(group: Alone, run: Run, store: Store, observer: Observer, stop: Stop) -> Training:
    with (
        run.lock() if group.is_first else nullcontext(),
        within_memory(*LOWER),
        stop,
        torch.inference_mode(False),
        torch.enable_grad(),  # whatever the program is in
    ):
        if group.is_first:
            run.tidy()
        run = fitting(run, store, group)  # before the display of the training, for it has one of its own
        with observer:
            trainer = Trainer(run, store, observer, group)
            trainer.start()  # which says what was damaged, before the introduction
            logger.info(introduction(run, trainer.state))
            if not trainer.state.step and (copies := _copies(run)):
                logger.warning(copies)
            done = trainer.finished
            finished = done or trainer.run(stop)
    step = trainer.state.step
    if done:
        return Training(run, step, True, (conclusion(run, step),))
    stopped = f"stopped at step {step} of {run.length}; all is saved, the same command continues"
    return Training(run, step, finished, _made(run) if finished else (stopped,))


def _opened(group: Alone, config: Config, folder: Path, data_of: Run | None, by_class: bool) -> tuple[Run, Store]:
    """The run and its data, made ready by the first process; the others, on a disk of their own, need the data alone.

    Raises UserError, in all processes, where one was asked otherwise, has no image of a batch or finds other data.
    """
    software = {"unstir": unstir.__version__, "torch": torch.__version__, "randomness": randomness.VERSION}
    group.agree({**software, **toml.flat(config)}, "start all with one version and the same options")
    if config.train.batch_size < (num := group.size):
        few = f"leaves some of {num} processes without an image"
        raise UserError("train.batch_size", config.train.batch_size, few, ({"train.batch_size": num}, "start fewer"))
    facts, problem = dict[str, Any](), ""
    if group.is_first:
        if config.kind.has_teacher and not is_run(folder):
            check_teacher(config)
        store = open_data(config, folder, data_of, by_class)
        run = open_run(_of_classes(config, store, store.path) if by_class else config, folder, store)
        facts = {"path": str(run.path), "config": toml.to_dict(run.config), "data": run.data.plain()}
    facts = group.of_first(facts)
    if not group.is_first:
        try:
            run = Run(Path(facts["path"]), toml.from_dict(facts["config"], facts["path"]), DataCard.of(facts["data"]))
            store = with_store(run)[1]
            check_data(run.path, run.data, store)
            if group.local == 0:  # once on each machine
                store.verify()
        except UserError as error:
            problem = f"{group}: {error}; all processes need it there, on a shared disk or as a copy"
    if problems := [text for text in group.of_all(problem) if text]:
        raise UserError(problems[0])
    return run, store


def _of_classes(config: Config, data: Store | Plan, whose: object) -> Config:
    if not data.classes:
        raise UserError("by_class", True, f"needs classes, and {whose} has none", "pack a folder of images per class")
    if config.data.condition:
        raise UserError(
            "by_class", True, "does not go with data.condition", ({"by_class": None}, {"data.condition": ""})
        )
    model = replace(config.model, num_classes=len(data.classes))
    train = replace(config.train, condition_dropout=config.train.condition_dropout or 0.1)
    return replace(config, model=model, train=train)


def _made(run: Run) -> tuple[str, ...]:
    curves = [str(path) for path in (run.path / "curves.png", run.path / "losses.png") if path.exists()]
    return (
        f"samples  {newest_grid(run)}",
        f"curves   {', '.join(curves)}",
        f"data     {run.config.data.store}",
        f"memory   {resources.peak(build.device(run.config.train.device)) / 1e9:,.2f} GB at the peak",
    )


def open_run(config: Config, out: Path, store: Store) -> Run:
    """The run in folder ``out``: made from ``config``, or, where there is one, continued with what may change.

    Settings that no step is left to use are logged. Raises UserError where the settings do not fit the data or
    each other, and where they change what a run keeps.
    """
    conditions = None
    if config.data.condition:
        from unstir.runs.conditions import Conditions, conditioned  # which few runs have

        config = conditioned(config, store)
        conditions = None if is_run(out) else Conditions.measured(config.data, store)
    if is_run(out):
        return _continued(Run.open(out), config, store)
    _check_fit(config, card := DataCard.of_store(store), store.path)
    config = replace(config, imported="")
    train = settled(Run(out, config, card))
    dtype = build.dtype_name(train.dtype, build.device(train.device))
    train = replace(train, dtype=dtype, init=train.init and pinned(train.init))
    data = replace(config.data, store=str(store.path.resolve()))
    return Run.begin(replace(config, train=train, data=data), out, card, conditions)


def _continued(old: Run, asked: Config, store: Store) -> Run:
    """The old run with the settings that may change taken from ``asked``; what was resolved at its start stays."""
    saved = old.config
    train = replace(
        asked.train,
        init=saved.train.init if is_pinned(saved.train.init, asked.train.init) else asked.train.init,
        dtype=saved.train.dtype if asked.train.dtype == "auto" else asked.train.dtype,
        micro_batch=asked.train.micro_batch or saved.train.micro_batch,
        lr_period=saved.train.lr_period if asked.train.lr_period == "0 steps" else asked.train.lr_period,
    )
    data = replace(asked.data, store=str(store.path.resolve()))
    asked = replace(asked, train=train, data=data)
    changed = toml.changes(saved, asked)
    new = Run(old.path, replace(asked, recipe=saved.recipe), old.data)
    newest = max((step for step, _ in checkpoint.listed(old.checkpoints, old.data.run)), default=0)
    if new.length < newest:
        if saved.kind.has_teacher:
            changed.pop("train.lr_period", None)  # which follows the length
        _say_unused(changed, newest, "and nothing of it is kept")
        return new  # further than asked: nothing is left to do, and nothing is changed
    check_changed(new, changed)
    if changed:
        with old.lock():  # another process may be training it with the old ones
            new.save_config()
            new.record("changed", **changed)
    if new.length == newest:
        _say_unused(changed, newest, "which is kept for when the run goes on")
    return new


def _say_unused(changed: dict[str, Any], newest: int, kept: str) -> None:
    needs_none = "train.length", "log.to", "data.store"
    if unused := [f"{key}={value}" for key, value in changed.items() if key not in needs_none]:
        logger.warning(f"the run has taken step {newest}, its last: {', '.join(unused)} is not used, {kept}")


def _check_plan(config: Config, out: Path, plan: Plan, by_class: bool) -> None:
    source, card = config.data.source, DataCard(plan.shape, plan.classes, plan.counts, "")
    config = _of_classes(config, plan, source) if by_class else config
    _check_fit(config, card, source)
    settled(Run(out, config, card))


def _check_fit(config: Config, data: DataCard, whose: object) -> None:
    channels, height, width = data.shape
    size, classes, batch = config.data.size, config.model.num_classes, config.train.batch_size
    if channels != config.data.channels:
        both = {"data.channels": channels, "model.in_channels": channels}
        raise UserError("data.channels", config.data.channels, f"is not the {channels} of {whose}", both)
    if size and (height, width) != sides(size):
        others = {"data.size": 0}, "pack them anew"
        raise UserError("data.size", size, f"is not that of the {sized((height, width))} images in {whose}", others)
    if not (most := data.counts["train"]):
        raise UserError("", whose, "has no training images")
    if batch > most:
        raise UserError("train.batch_size", batch, f"exceeds the {most} training images", {"train.batch_size": most})
    check_sides(config, height, width)
    if classes and classes != (num := len(data.classes)):
        fits = {"model.num_classes": num, **({} if num else config.unhidden)}
        raise UserError("model.num_classes", classes, f"is not the {num} classes of {whose}", fits)
    build.try_loss(config, height, width)


def introduction(run: Run, state: State) -> str:
    """What is about to be trained on what, in a line."""
    config, count = run.config, sum(p.numel() for p in state.net.parameters())
    is_compiled = config.train.compile != "no"
    device, num = state.window.device, state.processes
    where = f"{num} processes, {device.type}" if num > 1 else str(device)
    origin = f" by the recipe {config.recipe}" if config.recipe else ""
    if config.kind.has_teacher:
        origin = f" that learns from {config.train.init}"
    new = "" if state.step else f"a new run{origin}, "
    goal = f"of {run.length}" if state.step <= run.length else f"beyond the {run.length} asked for"
    training, held_out = (run.data.counts[split] for split in ("train", "held_out"))
    images = f"{training} training and {held_out} held-out images of {sized(run.data.shape)}"
    kind = config.train.dtype + ", compiled," * is_compiled
    begun = f"{run.path}: {new}{count:,} parameters in {kind} on {where}; {images}; step {state.step} {goal}"
    if config.kind.has_teacher:
        from unstir.train.paths import PATHS, PERIOD, STEPS

        begun += f"; before each {PERIOD} steps up to {PATHS * STEPS[1]} calls of the teacher"
    return begun + "; compiling takes minutes at the first step" * is_compiled


def _copies(run: Run) -> str:
    """What to expect where few images are seen often; "" where nothing tells copies."""
    images, config = run.data.counts["train"], run.config
    passes = run.length * config.train.batch_size // images
    if config.kind.has_teacher or images >= FEW or passes < OFTEN:
        return ""
    advice = "New images take thousands to learn from, or the step of the lowest held-out loss (unstir doctor)"
    return f"{passes} passes over {images} images: expect copies of these. {advice}"


def conclusion(run: Run, step: int) -> str:
    """What to say of a run that has nothing left to do at ``step``, and how to make it longer."""
    goal, length, command = 2 * step, Run.open(run.path).length, f"To go on: unstir train --out {quoted(run.path)}"
    beyond = f", beyond the {run.length} asked for: nothing to do"
    if length > step:
        return f"{run.path} is at step {step} of {length}{beyond}. {command}"
    options, warmup = f'--train.length "{goal} steps"', run.steps_in(run.config.train.warmup)
    if run.config.train.lr_schedule == "cosine" and goal > warmup + run.steps_in(run.config.train.lr_period):
        options += f' --train.lr_period "{goal - warmup} steps"'
    keeps = f"{beyond}, for a run keeps its steps" if run.length < step else ""
    return f"{run.path} is finished, at step {step}{keeps}. {command} {options}; to begin anew: another folder"


def open_data(config: Config, out: Path, data_of: Run | None = None, by_class: bool = False) -> Store:
    """The packed store that a run in folder ``out`` is trained on, packed now where it is not there yet.

    A run that exists keeps to its store, checked by its content hash, and a new one to that of the run ``data_of``; the
    source is then needed only where the store has gone. Raises UserError for mistakes in data, folder, device and
    settings, if possible before any image is decoded, and where the data is not what that run began with.
    """
    train, device = config.train, build.device(config.train.device)
    build.check_parts(config)
    if size := sides(config.data.size):
        check_sides(config, *size)
    old = data_of
    if is_run(out):
        old = Run.open(out)
        why = f" ({old.config.kind.origin}) and has no training to continue"
        old.config.kind.check_trained_here(out, why, f"to go on from its weights: {old.going_on}")
    else:
        check_free(out)
        if train.init:
            check_initial(config)
        build.check_compile(train.compile, device)
        if train.lr_every == "step" and "epoch" not in f"{train.length} {train.warmup} {train.lr_period}":
            settled(Run(out, config, DataCard((1, 1, 1), (), {"train": train.batch_size}, "")))  # whatever the data
    named = config.data.store
    if old is not None and named not in ("", old.config.data.store) and not is_store(named):
        raise UserError("data.store", named, "is no packed store", "leave it out, or name one")
    store = store_of(config.data, old, lambda plan: _check_plan(config, out, plan, by_class))
    if old is not None and store.content_hash != old.data.content_hash:
        raise UserError("data.store", store.path, f"is not the data of {old.path}", "name that, or start another run")
    store.verify()
    return store


def check_sides(config: Config, height: int, width: int) -> None:
    """Raise UserError where the network cannot halve images of these sides at each level."""
    model, multiple = config.model, config.model.multiple
    if not config.data.condition or model.condition_values or model.condition_channels:  # else known once it is packed
        build.check_own(config, height, width)
    longer = [side for side in (height, width) if side > 1]
    if any(side % multiple for side in longer):
        near = {side: max((2 * side + multiple) // (2 * multiple), 1) * multiple for side in longer}  # or the larger
        side = written((near.get(height, 1), near.get(width, 1)))
        levels = [level for level in range(len(model.mults)) if not any(length % (1 << level) for length in longer)]
        attention = [level for level in model.attention if level in levels] or levels[-1:]
        again = f"pack the images again with size={side}" if is_store(config.data.source) else {"data.size": side}
        fewer = {"model.mults": model.mults[: len(levels)], "model.attention": attention}
        sides = f"need sides of images that are multiples of {multiple}"
        raise UserError("model.mults", model.mults, f"{sides}, not {sized((height, width))}", (again, fewer))


def store_path(data: DataConfig) -> Path:
    """Where the packed data of these settings is kept: data.store, or data/NAME below the current folder.

    What is published under a name is data/NAME, such as data/mnist. A path of the user's, or another selection of
    those, has the first digits of a hash of its settings behind its name.
    """
    if data.store:
        return Path(data.store)
    path = Path(os.path.realpath(usable_path(data.source)))
    name = path.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
    asked = replace(data, condition="", condition_options={}, flip=False)
    if asked == DataConfig(source=data.source, channels=1 if data.source in EMBEDDED else 3) and data.source in NAMES:
        return Path("data") / name
    source = data.source if is_named(data.source) else path
    settings = [str(source), data.size, data.channels, data.held_out, data.sha256, *data.options.items()]
    settings += [data.depth, *data.scale] if (data.depth, data.scale) != (DataConfig.depth, ()) else []
    settings += [os.path.realpath(data.conditions)] if data.conditions else []
    return Path("data") / f"{name.replace(':', '-')}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]}"


def store_of(data: DataConfig, old: Run | None, check: Callable[[Plan], None]) -> Store:
    """The store of ``data``, of the run ``old`` or the source itself, else the source packed, if ``check`` lets it."""
    places = [] if old is None else [data.store, old.config.data.store]
    for place in (*places, data.source):
        if place and is_store(place):
            for name, what in ("sha256", "the hash of"), ("conditions", "for the packing of"):
                if old is None and (given := getattr(data, name)):
                    raise UserError(f"data.{name}", given, f"is {what} files, not stores", {f"data.{name}": None})
            return Store.open(place)
    if old is not None and not is_named(data.source) and not usable_path(data.source).exists():
        raise UserError("data.store", Path(places[-1]), f"is gone, and so is {data.source}", "name its new folder")
    if not data.source:
        raise UserError("data.source", "", "names no images")
    path = store_path(data)
    known = is_store(path)
    store = _packed(data, path, check if old is None else lambda plan: None)
    for line in () if known else remarks(store):
        logger.warning(line)
    if store.refused and not known:
        listed = f"unstir data inspect {quoted(store.path)} lists them"
        logger.warning(f"{counted(len(store.refused), 'file')} refused: {listed}")
    return store


def _packed(data: DataConfig, path: Path, check: Callable[[Plan], None]) -> Store:
    names = "size", "channels", "held_out", "sha256", "depth", "scale", "options", "conditions"
    given: dict[str, Any] = {name: value for name in names if (value := getattr(data, name)) not in ("", ())}
    try:
        return packed(Options(data.source, download_dir=path.parent, **given), path, check)
    except UserError as error:
        if error.key.startswith(("options", "conditions")):
            raise error.within("data") from None
        if error.key != "channels" or not isinstance(error.remedy, dict):
            raise
        both = {f"{section}channels": error.remedy["channels"] for section in ("data.", "model.in_")}
        raise UserError("data.channels", error.given, error.allowed, both) from None
