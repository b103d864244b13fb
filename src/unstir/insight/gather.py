"""A run's folder, read once: everything that checks, sentences and pages are made of."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unstir.chain import OPTIONS
from unstir.data import Store
from unstir.errors import UserError
from unstir.insight.facts import NO_SAMPLES, Facts, SavedFile, Speed, step_of
from unstir.insight.image_stats import ImageStats, image_stats
from unstir.insight.sampled import measured
from unstir.metrics.evaluation import Evaluation, saved, unlike
from unstir.metrics.likelihood import Likelihood
from unstir.metrics.likelihood import read as read_likelihood
from unstir.progress import counting
from unstir.runs import build, checkpoint, toml
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.files import decode
from unstir.runs.run import Run, check_same
from unstir.runs.stores import compared_with
from unstir.runs.timetable import snapshots
from unstir.theory.averages import WIDTHS

SPEED = "speed.json"
APART = ("sampler", "steps", "calls", "spacing", *OPTIONS)  # what differs between the chains of the plot of calls


def gather(
    path: str | Path,
    *,
    store: str | Path | None = None,
    samples: bool = True,
    protocol: Mapping[str, Any] | None = None,
) -> Facts:
    """The facts of the run in folder ``path``.

    ``store`` names its packed data where that has moved; without ``samples`` no image is drawn and no loss measured.
    Of its evaluations those that compare are taken: by ``protocol``, else the most of them. Raises UserError where
    there is no run, or where ``store`` is named and is no store.
    """
    run = Run.open(path)
    files, loaded = _files(run)
    settings_problem = "" if loaded is None else _refusal(check_same, run, loaded)
    if settings_problem and loaded:
        with suppress(UserError):
            run = replace(run, config=toml.from_dict(loaded.config, str(run.path)))
    lines, (run, opened, store_problem) = tuple(run.metrics()), _store(run, store)
    step = step_of(lines, files)
    by_step, by_chain = _comparable(saved(run), protocol)
    facts = Facts(
        run=run,
        lines=lines,
        disk_free=shutil.disk_usage(run.path).free,
        disk_needed=disk_needed(run, files, step),
        files=files,
        loaded=loaded,
        settings_problem=settings_problem,
        store=opened,
        store_problem=store_problem,
        held_out=tuple(run.held_out()),
        images=_looked_at(opened),
        unmeasured=NO_SAMPLES,
        by_step=by_step,
        by_chain=by_chain,
        likelihoods=likelihoods(run, since=by_step[-1].step if by_step else (run.saved_steps() or [step])[-1]),
        speed=read_speed(run),
    )
    if samples and loaded is not None and _refusal(check_same, run, loaded):
        return replace(facts, unmeasured="the weights were trained with other settings or other data")
    return measured(facts) if samples else facts


def _looked_at(store: Store | None) -> ImageStats | None:
    """What there is to say of the store's images; None without training images."""
    if store is None or not store.count("train"):
        return None
    return image_stats(store)


def _refusal(check: Callable[..., object], *args: object) -> str:
    """What a check says that raises UserError; an empty string where it raises none."""
    try:
        check(*args)
    except UserError as error:
        return str(error)
    return ""


def _store(run: Run, named: str | Path | None) -> tuple[Run, Store | None, str]:
    """The run and its store with what is wrong with it; None where it cannot be opened. A named one has to be there.

    An imported run knows no data; it takes the store named for its own.
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
    now, began = opened.content_hash, run.data.content_hash
    if now == began:
        return run, opened, _refusal(Store.verify, opened)
    other = f"its content hash is {now[:12]}..., the run's {began[:12]}..."
    return run, opened, f"{opened.path} is not the data that the run began with: {other}"


def _files(run: Run) -> tuple[tuple[SavedFile, ...], Checkpoint | None]:
    """Every saved file, read and verified, and the newest whole one: a full one rather than a slim one of its step.

    Training removes files as it saves new ones: one that has gone is left out, and the folders are listed once more.
    """
    files: dict[Path, SavedFile] = {}
    newest: Checkpoint | None = None
    for _ in range(2):
        folders = ((run.checkpoints, "full"), (run.weights, "slim"))
        listed = [(step, path, kind) for folder, kind in folders for step, path in checkpoint.listed(folder)]
        with counting("reading weights", "files") as count:
            for done, (step, path, kind) in enumerate(listed, start=1):
                problem, loaded = ("", None) if path in files else _read(path, kind)
                if path not in files and (loaded or path.exists()):
                    files[path] = SavedFile(step, path, kind, problem)
                    newest = max(filter(None, (newest, loaded)), key=lambda c: (c.step, c.kind == "full"), default=None)
                count(done, len(listed))
        if all(path in files for _, path, _ in listed):
            break
    return tuple(sorted(files.values(), key=lambda file: (file.kind, file.step))), newest


def _read(path: Path, kind: str) -> tuple[str, Checkpoint | None]:
    """What is wrong with a saved file, and its content, which is None where it is not whole or has gone."""
    try:
        loaded = checkpoint.load(path)
    except (UserError, FileNotFoundError) as error:
        return str(error), None
    if loaded.kind != kind:
        return f"{path} is a {loaded.kind} file where {kind} ones are kept", None
    return "", loaded


def disk_needed(run: Run, files: Sequence[SavedFile], step: int) -> int:
    """The bytes of files to come from ``step`` on."""
    if step >= run.length:
        return 0
    cfg, num = run.config, build.num_parameters(run.config)
    moments = 1 + (cfg.train.optimizer != "muon")
    full = (
        4 * num * (1 + moments + (cfg.train.ema_decay > 0) + len(WIDTHS) * cfg.train.power_ema + cfg.kind.has_teacher)
    )
    slim = 4 * num * (1 + len(WIDTHS) * cfg.train.power_ema)
    more = max(cfg.checkpoint.keep - sum(file.kind == "full" for file in files), 0)
    return full * (more + 1) + slim * sum(at > step for at in snapshots(run))  # one is whole before the oldest goes


def _comparable(
    evaluations: Sequence[Evaluation], protocol: Mapping[str, Any] | None = None
) -> tuple[tuple[Evaluation, ...], tuple[Evaluation, ...]]:
    """The evaluations of several steps by one protocol, and those of the last of them by several chains.

    Without ``protocol`` it is that of which there are most of both kinds together; of equally many, with most images.
    """
    newest = max((item.step for item in evaluations), default=0)
    last = [item for item in evaluations if item.step == newest]

    def group(of: Evaluation) -> tuple[tuple[Evaluation, ...], tuple[Evaluation, ...]]:
        by_step = tuple(item for item in evaluations if not unlike(of.protocol, item.protocol))
        return by_step, tuple(item for item in last if not unlike(of.protocol, item.protocol, APART))

    def weight(of: Evaluation) -> tuple[int, int]:
        return sum(map(len, group(of))), of.protocol["num"] * of.protocol["seeds"]

    matching = [item for item in last if protocol is not None and not unlike(protocol, item.protocol)]
    return group(max(matching or last, key=weight)) if last else ((), ())


def likelihoods(run: Run, since: int) -> dict[str, dict[str, Any]]:
    """The bounds that `unstir likelihood` wrote, by split: with its usual settings, every term and all images if there.

    Only those of the newest step that has any are taken, and none of a step before ``since``: they are of weights
    that the run has left behind.
    """
    read = map(read_likelihood, sorted((run.path / "likelihood").glob("*.json")))
    results = [result for result in read if result is not None and result.protocol["step"] >= since]
    newest = max((result.protocol["step"] for result in results), default=None)

    def rank(result: Likelihood) -> tuple[bool, bool, bool, int]:
        how = result.protocol
        unusual = how.get("ema") is not True or not how.get("clip") or how.get("variance") == "small"
        return unusual, how["calls"] != how["T"], how.get("dtype") != "float32", -result.num

    of_newest = sorted((result for result in results if result.protocol["step"] == newest), key=rank, reverse=True)
    return {result.protocol["split"]: asdict(result) for result in of_newest}


def read_speed(run: Run) -> Speed | None:
    """What `measuring.time_samplers` kept; None where it kept nothing, or the file is damaged."""
    try:
        result = Speed(**decode((run.path / SPEED).read_bytes()))
        whole = all(float(value) > 0 for value in result.seconds.values()) and result.num > 0
        return result if whole and {"device", "torch"} <= result.machine.keys() else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
