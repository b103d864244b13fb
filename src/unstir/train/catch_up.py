"""The held-out loss measured after training, from the weights kept at its snapshots."""

from collections.abc import Callable
from dataclasses import replace

import torch

from unstir.data import Store, verify_once
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.runs import build, lines
from unstir.runs.agreement import check_data
from unstir.runs.run import Run
from unstir.runs.timetable import snapshots
from unstir.train.held_out import HeldOutLoss
from unstir.train.observer import Observer, Stop


def catch_up(run: Run, store: Store, progress: Callable[[int, int], None] | None = None) -> int:
    """Add the lines of held_out.jsonl that snapshots lack, as training would have; return how many were added.

    A run that is being trained is left alone, and one whose log.held_out_images is 0, or whose held_out.jsonl is
    damaged; snapshots whose weights cannot be loaded are passed over. ``progress(done, total)`` counts snapshots.
    Raises UserError where ``store`` is not the run's data or has other bytes, or the file cannot be written.
    """
    check_data(run.path, run.data, store)
    verify_once(store)
    try:
        lock = run.lock()
    except UserError:  # whoever trains it measures it
        return 0
    with lock:
        before = run.log("held_out")
        if before.damaged:  # continuing keeps a copy first, and says so
            return 0
        device = build.device(run.config.train.device)
        loss = HeldOutLoss(run, store, device)
        planned = snapshots(run)
        missing = [step for step in run.saved_steps() if step in planned and loss.due(step)]
        added = 0
        for done, step in enumerate(missing, start=1):
            if (denoiser := _denoiser(run, step, device)) is not None:
                loss.measure(denoiser, step, Observer(), Stop(install=False))
                added += 1
            if progress is not None:
                progress(done, len(missing))
        written = run.held_out()
        found = sorted(written, key=lambda line: line["step"])
        if found != written:  # those added, now or by a call that was killed, stand in their places
            lines.write(run.held_out_file, found)
    return added


def _denoiser(run: Run, step: int, device: torch.device) -> Denoiser | None:
    """The sampling weights of a step in the arithmetic of training; None where they cannot be loaded."""
    try:
        model = run.model(step, device=str(device))
    except UserError:
        return None
    return replace(model.denoiser, dtype=build.dtype(run.config.train.dtype, device))
