"""A run's folder, read once: everything that checks, sentences and pages are made of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstir.chain import OPTIONS
from unstir.data import Store
from unstir.errors import UserError
from unstir.insight.facts import NO_SAMPLES, Facts, SavedFile, Speed
from unstir.insight.image_stats import image_stats
from unstir.insight.sampled import with_samples
from unstir.metrics.evaluation import Evaluation, saved, unlike
from unstir.metrics.likelihood import Likelihood
from unstir.metrics.likelihood import read as read_likelihood
from unstir.progress import counting
from unstir.runs import checkpoint, toml
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.files import decode
from unstir.runs.run import Run, check_same
from unstir.runs.stores import compared_with

SPEED = "speed.json"
APART = ("sampler", "steps", "calls", "spacing", *OPTIONS)  # what differs between the chains of the plot of calls


def gather(
    path: str | Path,
    *,
    store: Store | str | Path | None = None,
    samples: bool = True,
    protocol: Mapping[str, Any] | None = None,
) -> Facts:
    """The facts of the run in folder ``path``.

    ``store`` is its packed data where that has moved; without ``samples`` no image is drawn and no loss measured.
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
    by_step, by_chain = _comparable(saved(run), protocol)
    facts = Facts(
        run=run,
        lines=lines,
        files=files,
        loaded=loaded,
        settings_problem=settings_problem,
        store=opened,
        store_problem=store_problem,
        held_out=tuple(run.held_out()),
        images=image_stats(opened) if opened is not None and opened.count("train") else None,
        unmeasured=NO_SAMPLES,
        by_step=by_step,
        by_chain=by_chain,
        bound=newest_bound(run, since=by_step[-1].step if by_step else (run.saved_steps() or [0])[-1]),
        speed=read_speed(run),
    )
    if samples and loaded is not None and _refusal(check_same, run, loaded):
        return replace(facts, unmeasured="the weights were trained with other settings or other data")
    return with_samples(facts) if samples else facts


def _refusal(check: Callable[..., object], *args: object) -> str:
    """What a check says that raises UserError; an empty string where it raises none."""
    try:
        check(*args)
    except UserError as error:
        return str(error)
    return ""


def _store(run: Run, named: Store | str | Path | None) -> tuple[Run, Store | None, str]:
    """The run and its store with what is wrong with it; None where it cannot be opened. A named one has to be there.

    An imported run knows no data; it takes the store named for its own.
    """
    if named is None and not run.data.content_hash:
        return run, None, ""
    try:
        opened = named if isinstance(named, Store) else Store.open(run.config.data.store if named is None else named)
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

    Training removes files as it saves new ones: where one has gone, the folders are listed and read once more.
    """
    files, newest = list[SavedFile](), list[Checkpoint]()
    folders = ((run.checkpoints, "full"), (run.weights, "slim"))
    listed = [(step, path, kind) for folder, kind in folders for step, path in checkpoint.listed(folder)]
    with counting("reading weights", "files") as count:
        for done, (step, path, kind) in enumerate(listed, start=1):
            try:
                loaded, problem = checkpoint.load(path), ""
                if loaded.kind != kind:
                    problem = f"{path} is a {loaded.kind} file where {kind} ones are kept"
                else:
                    newest = [max([loaded, *newest], key=lambda it: (it.step, it.kind == "full"))]
            except (UserError, FileNotFoundError) as error:
                if not path.exists() and not path.is_symlink():
                    return _files(run)
                problem = str(error)
            files.append(SavedFile(step, path, kind, problem))
            count(done, len(listed))
    return tuple(files), next(iter(newest), None)


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


def newest_bound(run: Run, since: int) -> Likelihood | None:
    """The newest bound on held-out images that `unstir likelihood` wrote by its usual settings; None where none is.

    Of one step, every term and all images go first. None of a step before ``since`` is taken: the run has left these
    weights behind.
    """
    read = filter(None, map(read_likelihood, sorted((run.path / "likelihood").glob("*.json"))))

    def usual(how: Mapping[str, Any]) -> bool:
        settings = how.get("ema") is True and how.get("clip") and how.get("variance") != "small"
        return how["split"] == "held_out" and how["step"] >= since and bool(settings)

    def rank(result: Likelihood) -> tuple[int, bool, bool, int]:
        how = result.protocol
        return how["step"], how["calls"] == how["T"], how.get("dtype") == "float32", result.num

    return max((it for it in read if usual(it.protocol)), key=rank, default=None)


def read_speed(run: Run) -> Speed | None:
    """What `measuring.time_samplers` kept; None where it kept nothing, or the file is damaged."""
    try:
        result = Speed(**decode((run.path / SPEED).read_bytes()))
        whole = all(float(value) > 0 for value in result.seconds.values()) and result.num > 0
        return result if whole and {"device", "torch"} <= result.machine.keys() else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
