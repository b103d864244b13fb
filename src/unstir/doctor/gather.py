"""Everything that the checks look at, read and measured once; what cannot be had is left out with the reason."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from unstir.data import Store, verify_once
from unstir.diffusion.finite import NotFiniteError
from unstir.doctor.facts import RunFacts, SavedFile
from unstir.doctor.image_stats import image_stats
from unstir.doctor.measure import draw_samples, needs, squared_errors
from unstir.errors import UserError
from unstir.runs import checkpoint, toml
from unstir.runs.agreement import check_same
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.loading import model_of
from unstir.runs.run import Run

Progress = Callable[[int, int, str], None]
"""progress(done, total, what)."""


def gather(path: str | Path, *, store: str | Path | None = None, samples: bool = True, progress: Progress) -> RunFacts:
    """The run in folder ``path``, ready for the checks.

    ``store`` names its packed data where that has moved; without ``samples`` no image is drawn and no loss measured.
    Raises UserError where there is no run, or where ``store`` is named and is no store.
    """
    run = Run.open(path)
    files, loaded = _files(run, progress)
    run, settings_problem = _with_its_own_settings(run, loaded)
    lines = tuple(run.metrics())
    steps = [line["step"] for line in lines[-1:]] + [file.step for file in files if not file.problem]
    opened, problem = _store(run, store)
    facts = RunFacts(
        run=run,
        lines=lines,
        files=files,
        store=opened,
        store_problem=problem,
        needs=needs(run, files, max(steps, default=0)),
        held_out=tuple(run.held_out()),
        loaded=loaded,
        settings_problem=settings_problem,
    )
    if opened is not None:
        facts = replace(facts, images=image_stats(opened, lambda done, total: progress(done, total, "images")))
    return _measured(facts, samples, progress)


def _measured(facts: RunFacts, samples: bool, progress: Progress) -> RunFacts:
    """The facts with samples drawn and losses measured, where there are weights and data and it is asked for."""
    run, store, loaded = facts.run, facts.store, facts.loaded
    missing = {"lines": "no line in metrics.jsonl yet", "held_out": "no line in held_out.jsonl"}
    if loaded is None:
        missing |= dict.fromkeys(("loaded", "samples", "errors"), "no saved weights that are whole")
    if store is None:
        missing |= dict.fromkeys(("store", "images", "samples", "errors"), "the data is not there")
    elif store.count("train") < 2 or store.shape != run.data.shape:
        missing |= dict.fromkeys(("samples", "errors"), "the data does not fit the run")
    if _refusal(run, loaded):
        missing |= dict.fromkeys(("samples", "errors"), "the settings or the data beside the weights are not theirs")
    if not samples:
        missing |= dict.fromkeys(("samples", "errors"), "left out by --no-samples")
    if loaded is None or store is None or "samples" in missing:
        return replace(facts, missing=tuple(missing.items()))
    if run.config.model.num_classes and not store.labelled:
        missing |= dict.fromkeys(("samples", "errors"), "the data has no labels")
        return replace(facts, missing=tuple(missing.items()))
    try:
        model = model_of(run, loaded, dtype="auto")
        drawn = draw_samples(run, model, store, lambda done, total: progress(done, total, "steps of samples"))
    except NotFiniteError:
        missing |= dict.fromkeys(("samples", "errors"), "the network answers with NaN or an infinity")
        return replace(facts, missing=tuple(missing.items()))
    errors = squared_errors(run, loaded, store)
    return replace(facts, samples=drawn, errors=errors, missing=tuple(missing.items()))


def _with_its_own_settings(run: Run, loaded: Checkpoint | None) -> tuple[Run, str]:
    """The run with the settings that its weights were trained with, and what is wrong with those beside them."""
    problem = _refusal(run, loaded)
    if problem and loaded is not None:
        with suppress(UserError):
            run = replace(run, config=toml.from_dict(loaded.config, str(run.path)))
    return run, problem


def _refusal(run: Run, loaded: Checkpoint | None) -> str:
    try:
        if loaded is not None:
            check_same(run, loaded)
    except UserError as error:
        return str(error)
    return ""


def _store(run: Run, named: str | Path | None) -> tuple[Store | None, str]:
    """The run's store with what is wrong with it; None where it cannot be opened. A named one has to be there."""
    if named is not None:
        opened = Store.open(named)
    else:
        try:
            opened = Store.open(run.config.data.store)
        except UserError as error:
            return None, str(error)
    if opened.content_hash != run.data.content_hash:
        return opened, (
            f"{opened.path} is not the data that the run began with: its content hash is "
            f"{opened.content_hash[:12]}..., the run's {run.data.content_hash[:12]}..."
        )
    try:
        verify_once(opened)
    except UserError as error:
        return opened, str(error)
    return opened, ""


def _files(run: Run, progress: Progress) -> tuple[tuple[SavedFile, ...], Checkpoint | None]:
    """Every saved file, read and verified, and the newest whole one: a full one rather than a slim one of its step.

    Training removes files as it saves new ones: one that has gone is left out, and the folders are listed once more.
    """
    found: dict[Path, SavedFile] = {}
    newest: Checkpoint | None = None
    places = [(run.checkpoints, "full"), (run.weights, "slim")]
    for _ in range(2):
        listed = [(step, path, kind) for folder, kind in places for step, path in checkpoint.listed(folder)]
        for done, (step, path, kind) in enumerate(listed, start=1):
            if path not in found and (read := _read(step, path, kind)):
                found[path], loaded = read
                newest = max(filter(None, (newest, loaded)), key=lambda c: (c.step, c.kind == "full"), default=None)
            progress(done, len(listed), "files")
        if all(path in found for _, path, _ in listed):
            break
    return tuple(sorted(found.values(), key=lambda file: (file.kind, file.step))), newest


def _read(step: int, path: Path, kind: str) -> tuple[SavedFile, Checkpoint | None] | None:
    """A saved file with its content, which is None where it is not whole; None for a file that has gone."""
    try:
        size = path.stat().st_size
        loaded = checkpoint.load(path)
    except FileNotFoundError:
        return None
    except UserError as error:
        return (SavedFile(step, path, kind, size, str(error)), None) if path.exists() else None
    if loaded.kind != kind:
        return SavedFile(step, path, kind, size, f"{path} is a {loaded.kind} file where {kind} ones are kept"), None
    return SavedFile(step, path, kind, size), loaded
