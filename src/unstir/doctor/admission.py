"""Everything that the checks look at, read and measured once; what cannot be had is left out with the reason."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstir.data import Store
from unstir.doctor.measure import draw_samples, needs, squared_errors
from unstir.doctor.patient import Patient, SavedFile
from unstir.doctor.survey import survey
from unstir.errors import UserError
from unstir.runs import checkpoint
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run

Progress = Callable[[int, int, str], None]
"""progress(done, total, what)."""


def admit(path: str | Path, *, store: str | Path | None = None, samples: bool = True, progress: Progress) -> Patient:
    """The run in folder ``path``, ready for the checks.

    ``store`` names its packed data where that has moved; without ``samples`` no image is drawn and no loss measured.
    Raises UserError where there is no run, or where ``store`` is named and is no store.
    """
    run = Run.open(path)
    files, loaded = _files(run, progress)
    lines = tuple(run.metrics())
    steps = [line["step"] for line in lines[-1:]] + [file.step for file in files if not file.problem]
    opened, problem = _store(run, store)
    patient = Patient(
        run=run,
        lines=lines,
        files=files,
        store=opened,
        store_problem=problem,
        needs=needs(run, files, max(steps, default=0)),
        held_out=_held_out(run),
        loaded=loaded,
    )
    if opened is not None:
        patient = replace(patient, survey=survey(opened, lambda done, total: progress(done, total, "images")))
    return _measured(patient, samples, progress)


def _measured(patient: Patient, samples: bool, progress: Progress) -> Patient:
    """The patient with samples drawn and losses measured, where there are weights and data and it is asked for."""
    run, store, loaded = patient.run, patient.store, patient.loaded
    missing = {"lines": "no line in metrics.jsonl yet", "held_out": "the run has no held_out.jsonl"}
    if loaded is None:
        missing |= dict.fromkeys(("loaded", "samples", "errors"), "no saved weights that are whole")
    if store is None:
        missing |= dict.fromkeys(("store", "survey", "samples", "errors"), "the data is not there")
    elif store.count("train") < 2 or store.shape != run.data.shape:
        missing |= dict.fromkeys(("samples", "errors"), "the data does not fit the run")
    if not samples:
        missing |= dict.fromkeys(("samples", "errors"), "left out by --no-samples")
    if loaded is None or store is None or "samples" in missing:
        return replace(patient, missing=tuple(missing.items()))
    if run.config.model.num_classes and not store.labelled:
        missing |= dict.fromkeys(("samples", "errors"), "the data has no labels")
        return replace(patient, missing=tuple(missing.items()))
    drawn = draw_samples(run, loaded, store, lambda done, total: progress(done, total, "steps of samples"))
    errors = squared_errors(run, loaded, store)
    return replace(patient, samples=drawn, errors=errors, missing=tuple(missing.items()))


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
        opened.verify()
    except UserError as error:
        return opened, str(error)
    return opened, ""


def _files(run: Run, progress: Progress) -> tuple[tuple[SavedFile, ...], Checkpoint | None]:
    """Every saved file, read and verified, and the newest whole one: a full one rather than a slim one of its step."""
    found: list[SavedFile] = []
    newest: Checkpoint | None = None
    places = [(run.checkpoints, "full"), (run.weights, "slim")]
    listed = [(step, path, kind) for folder, kind in places for step, path in checkpoint.listed(folder)]
    for done, (step, path, kind) in enumerate(listed, start=1):
        problem = ""
        try:
            loaded = checkpoint.load(path)
            if loaded.kind != kind:
                problem = f"{path} is a {loaded.kind} file where {kind} ones are kept"
            elif newest is None or loaded.step > newest.step:
                newest = loaded
        except UserError as error:
            problem = str(error)
        found.append(SavedFile(step, path, kind, path.stat().st_size, problem))
        progress(done, len(listed), "files")
    return tuple(found), newest


def _held_out(run: Run) -> tuple[dict[str, Any], ...] | None:
    """The lines of held_out.jsonl up to one that a kill cut short; None where there is no file."""
    file = run.path / "held_out.jsonl"
    if not file.is_file():
        return None
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            float(line["step"])
        except (ValueError, KeyError, TypeError):
            break
        lines.append(line)
    return tuple(lines)
