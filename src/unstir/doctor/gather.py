"""Everything that the checks read, draw and measure, once; what cannot be had is left out, with the reason."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import FAST
from unstir.data import Store
from unstir.diffusion.loss import denoising_loss
from unstir.doctor.check import MISSING, NO_SAMPLES, Errors, Needs, RunFacts, Samples, SavedFile, step_of
from unstir.doctor.image_stats import ImageStats, image_stats
from unstir.errors import NotFiniteError, UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.pixels import from_uint8, to_uint8
from unstir.progress import counted, counter, counting
from unstir.randomness import Key
from unstir.runs import build, checkpoint
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import Config
from unstir.runs.loading import check_same, model_of
from unstir.runs.run import Run
from unstir.runs.stores import compared_with
from unstir.runs.timetable import snapshots
from unstir.theory.averages import WIDTHS

MOST_IMAGES, FEWEST_IMAGES, WORK = 64, 16, 1.5e12  # floating-point operations; some 20 s of two cores
REAL_IMAGES = 2048
ERROR_IMAGES = 256


def gather(path: str | Path, *, store: str | Path | None = None, samples: bool = True) -> RunFacts:
    """The facts of the run in folder ``path``.

    ``store`` names its packed data where that has moved; without ``samples`` no image is drawn and no loss measured.
    Raises UserError where there is no run, or where ``store`` is named and is no store.
    """
    run = Run.open(path)
    files, loaded = _files(run)
    settings_problem = _unlike(run, loaded)
    lines, (run, opened, store_problem) = tuple(run.metrics()), _store(run, store)
    facts = RunFacts(
        run=run,
        lines=lines,
        files=files,
        store=opened,
        store_problem=store_problem,
        needs=needs(run, files, step_of(lines, files)),
        held_out=tuple(run.held_out()),
        loaded=loaded,
        settings_problem=settings_problem,
        images=_looked_at(opened),
    )
    return _measured(facts) if samples else replace(facts, unmeasured=NO_SAMPLES)


def _looked_at(store: Store | None) -> ImageStats | None:
    """What there is to say of the store's images; None without training images."""
    if store is None or not store.count("train"):
        return None
    return image_stats(store)


def _measured(facts: RunFacts) -> RunFacts:
    """The facts with samples drawn and losses measured, where there are weights, and data that fits them."""
    run, store, loaded = facts.run, facts.store, facts.loaded
    if _unlike(run, loaded):
        reason = "the weights were trained with other settings or other data"
    elif store is None:
        reason = MISSING["store"]
    elif store.count("train") < 2 or store.shape != run.data.shape:
        reason = "the data does not fit the run"
    elif loaded is None:
        reason = MISSING["loaded"]
    elif run.config.model.num_classes and not store.labelled:
        reason = "the data has no labels"
    else:
        with suppress(NotFiniteError):
            drawn = draw_samples(run, loaded, store)
            return replace(facts, samples=drawn, errors=squared_errors(run, loaded, store))
        reason = "the network answers with NaN or an infinity"
    return replace(facts, unmeasured=reason)


def _unlike(run: Run, loaded: Checkpoint | None) -> str:
    """Why the run's settings or data are not those of its weights; an empty string where they are."""
    return "" if loaded is None else _refusal(check_same, run, loaded)


def _refusal(check: Callable[..., object], *args: object) -> str:
    """What a check says that raises UserError; an empty string where it raises none."""
    try:
        check(*args)
    except UserError as error:
        return str(error)
    return ""


def _store(run: Run, named: str | Path | None) -> tuple[Run, Store | None, str]:
    """The run and its store with what is wrong with it; None where it cannot be opened. A named one has to be there.

    A run that knows no data takes the store named for its own.
    """
    if named is None and not run.data.content_hash:
        return run, None, ""
    try:
        opened = Store.open(run.config.data.store if named is None else named)
    except UserError as error:
        if named is not None:
            raise
        return run, None, str(error)
    run = compared_with(run, opened)
    found, began = opened.content_hash, run.data.content_hash
    if found == began:
        return run, opened, _refusal(Store.verify, opened)
    return (
        run,
        opened,
        (
            f"{opened.path} is not the data that the run began with: its content hash is {found[:12]}..., the run's "
            f"{began[:12]}..."
        ),
    )


def _files(run: Run) -> tuple[tuple[SavedFile, ...], Checkpoint | None]:
    """Every saved file, read and verified, and the newest whole one: a full one rather than a slim one of its step.

    Training removes files as it saves new ones: one that has gone is left out, and the folders are listed once more.
    """
    found: dict[Path, SavedFile] = {}
    newest: Checkpoint | None = None
    for _ in range(2):
        folders = ((run.checkpoints, "full"), (run.weights, "slim"))
        listed = [(step, path, kind) for folder, kind in folders for step, path in checkpoint.listed(folder)]
        with counting("reading weights", "files") as count:
            for done, (step, path, kind) in enumerate(listed, start=1):
                if path not in found and (read := _read(step, path, kind)):
                    found[path], loaded = read
                    newest = max(filter(None, (newest, loaded)), key=lambda c: (c.step, c.kind == "full"), default=None)
                count(done, len(listed))
        if all(path in found for _, path, _ in listed):
            break
    return tuple(sorted(found.values(), key=lambda file: (file.kind, file.step))), newest


def _read(step: int, path: Path, kind: str) -> tuple[SavedFile, Checkpoint | None] | None:
    """A saved file with its content, which is None where it is not whole; None for a file that has gone."""
    try:
        file = SavedFile(step, path, kind, path.stat().st_size)
        loaded = checkpoint.load(path)
    except FileNotFoundError:
        return None
    except UserError as error:
        return (replace(file, problem=str(error)), None) if path.exists() else None
    if loaded.kind != kind:
        return replace(file, problem=f"{path} is a {loaded.kind} file where {kind} ones are kept"), None
    return file, loaded


def affordable(run: Run, calls: int, most: int) -> int:
    """How many images, FEWEST_IMAGES to ``most``, take about WORK operations at ``calls`` network calls per image."""
    each = build.forward_flops(run.config, *run.data.shape[1:]) * calls
    return max(FEWEST_IMAGES, min(most, int(WORK / each)))


def draw_samples(run: Run, loaded: Checkpoint, store: Store) -> Samples:
    """Images from the averaged weights by a fast sampler, with real ones to compare."""
    steps = min(FAST.steps, run.config.diffusion.T)
    chain = run.chain() if run.config.kind.has_teacher else FAST.changed(steps=steps)
    num = affordable(run, steps, MOST_IMAGES)
    job = Job(num=num, chain=chain, batch_size=num)
    with counting("sampling", "steps") as count:
        batches = sample_batches(model_of(run, loaded, dtype="auto"), job, on_step=counter(count, chain.steps))
        images = torch.cat([x for _, x in batches])
    words = f"{counted(num, 'image')} by {job.chain.sampler} in {counted(chain.steps, 'step')} from step {loaded.step}"
    return Samples(to_uint8(images), _real(run, store, num), words)


def _real(run: Run, store: Store, num: int) -> Tensor:
    """Training images, of each class as often as among ``num`` samples where the network has labels."""
    order = randomness.permutation(0, "doctor", 0, store.count("train"))
    labels = store.labels("train") if run.config.model.num_classes else None
    drawn = run.labels.of(torch.arange(num))
    if labels is None or drawn is None:
        return store.images("train")[order[:REAL_IMAGES]]
    each = max(1, REAL_IMAGES // num)
    chosen = []
    for label, count in enumerate(torch.bincount(drawn, minlength=run.config.model.num_classes).tolist()):
        of_class = order[labels[order] == label]
        wanted = torch.arange(count * each) % max(len(of_class), 1)  # a small class is repeated
        chosen.append(of_class[wanted] if len(of_class) else of_class)
    return store.images("train")[torch.cat(chosen)]


@torch.inference_mode()
def squared_errors(run: Run, loaded: Checkpoint, store: Store) -> Errors:
    """The errors of raw and averaged weights on the same training images, times (`training_times`) and noise."""
    num = min(affordable(run, 2, ERROR_IMAGES), store.count("train"))
    index = randomness.Order(0, "doctor errors", 0, store.count("train"))[:num]
    labels = store.labels("train") if run.config.model.num_classes else None
    slots, t = torch.arange(num), training_times(run.config, num)
    found: dict[bool, Tensor] = {}
    full = loaded.kind == "full"
    averaged = run.config.train.ema_decay > 0 if full else loaded.ema
    for ema in [False, True] if full and averaged else [averaged]:
        model, errors = model_of(run, loaded, ema=ema), []
        for part in torch.split(slots, 64):
            x_0 = from_uint8(store.images("train")[index[part]].to(model.device))
            eps = randomness.normal(Key(0, "doctor noise", 0, part.to(model.device)), run.data.shape)
            label = None if labels is None else labels[index[part]].to(model.device)
            mse = denoising_loss(model.denoiser, x_0, t[part].to(model.device), eps, label).mse
            errors.append(mse.double().cpu())
        found[ema] = torch.cat(errors)
    return Errors(found.get(False), found.get(True))


def training_times(config: Config, num: int) -> Tensor:
    """Rising times in 1..T, int64 [num], distributed as those that training draws, or those its log is weighted to.

    Those of a density are the middles of equal shares of it; without one they are the first of equal parts of 1..T.
    """
    density = build.times(config, torch.device("cpu"))
    if density is None:
        return 1 + torch.arange(num) * config.diffusion.T // num
    return density.at((torch.arange(num, dtype=density.p.dtype) + 0.5) / num)


def needs(run: Run, files: tuple[SavedFile, ...], step: int) -> Needs:
    """The bytes of files to come from ``step`` on, and what the disk has."""
    cfg, num = run.config, build.num_parameters(run.config)
    moments = 1 + (cfg.train.optimizer != "muon")
    powers = len(WIDTHS) * cfg.train.power_ema
    full = 4 * num * (1 + moments + (cfg.train.ema_decay > 0) + powers + cfg.kind.has_teacher)
    slim = 4 * num * (1 + powers)
    there = sum(file.kind == "full" for file in files)
    pictures = sum(at > step for at in snapshots(run))
    more = max(cfg.checkpoint.keep - there, 0) + 1  # a new file is whole before the oldest goes
    return Needs(
        disk=shutil.disk_usage(run.path).free,
        files=0 if step >= run.length else full * more + slim * pictures,
    )
