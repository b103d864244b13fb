"""Everything that the checks read, measured once; what cannot be had is left out, with the reason."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from unstir.data import Store, verify_once
from unstir.diffusion.finite import NotFiniteError
from unstir.doctor.facts import MISSING, RunFacts, SavedFile
from unstir.doctor.image_stats import image_stats
from unstir.doctor.measure import draw_samples, needs, squared_errors
from unstir.errors import UserError
from unstir.runs import checkpoint, toml
from unstir.runs.agreement import check_same
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run

Progress = Callable[[int, int, str], None]
"""progress(done, total, what)."""


def gather(path: str | Path, *, store: str | Path | None = None, samples: bool = True, progress: Progress) -> RunFacts:
    """The facts of the run in folder ``path``.

    ``store`` names its packed data where that has moved; without ``samples`` no image is drawn and no loss measured.
    Raises UserError where there is no run, or where ``store`` is named and is no store.
    """
    run = Run.open(path)
    files, loaded = _files(run, progress)
    settings_problem = _refusal(run, loaded)
    if settings_problem and loaded is not None:
        with suppress(UserError):
            run = replace(run, config=toml.from_dict(loaded.config, str(run.path)))
    lines = tuple(run.metrics())
    steps = [line["step"] for line in lines[-1:]] + [file.step for file in files if not file.problem]
    opened, store_problem = _store(run, store)
    facts = RunFacts(
        run=run,
        lines=lines,
        files=files,
        store=opened,
        store_problem=store_problem,
        needs=needs(run, files, max(steps, default=0)),
        held_out=tuple(run.held_out()),
        loaded=loaded,
        settings_problem=settings_problem,
        images=None if opened is None else image_stats(opened, lambda done, total: progress(done, total, "images")),
    )
    return _measured(facts, progress) if samples else replace(facts, unmeasured="left out by --no-samples")


def _measured(facts: RunFacts, progress: Progress) -> RunFacts:
    """The facts with samples drawn and losses measured, where there are weights, and data that fits them."""
    run, store, loaded = facts.run, facts.store, facts.loaded
    if _refusal(run, loaded):
        return replace(facts, unmeasured="the weights were trained with other settings or other data")
    if store is None:
        return replace(facts, unmeasured=MISSING["store"])
    if store.count("train") < 2 or store.shape != run.data.shape:
        return replace(facts, unmeasured="the data does not fit the run")
    if loaded is None:
        return replace(facts, unmeasured=MISSING["loaded"])
    if run.config.model.num_classes and not store.labelled:
        return replace(facts, unmeasured="the data has no labels")
    try:
        drawn = draw_samples(run, loaded, store, lambda done, total: progress(done, total, "steps of samples"))
    except NotFiniteError:
        return replace(facts, unmeasured="the network answers with NaN or an infinity")
    return replace(facts, samples=drawn, errors=squared_errors(run, loaded, store))


def _refusal(run: Run, loaded: Checkpoint | None) -> str:
    """Why the run's settings or data are not those of its weights; an empty string where they are."""
    try:
        if loaded is not None:
            check_same(run, loaded)
    except UserError as error:
        return str(error)
    return ""


def _store(run: Run, named: str | Path | None) -> tuple[Store | None, str]:
    """The run's store with what is wrong with it; None where it cannot be opened. A named one has to be there."""
    try:
        opened = Store.open(run.config.data.store if named is None else named)
    except UserError as error:
        if named is not None:
            raise
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
    for _ in range(2):
        folders = ((run.checkpoints, "full"), (run.weights, "slim"))
        listed = [(step, path, kind) for folder, kind in folders for step, path in checkpoint.listed(folder)]
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
