"""Looks at held-out images made after training, from the weights that were kept of its moments."""

import itertools
from collections.abc import Callable

from unstir.data import Store
from unstir.errors import UserError
from unstir.runs import build
from unstir.runs.run import Run, weights_of
from unstir.train.held_out import HeldOut
from unstir.train.milestones import milestones
from unstir.train.record import keep_lines
from unstir.train.watch import Stop, Watch


def catch_up(run: Run, store: Store, progress: Callable[[int, int], None] | None = None) -> int:
    """Add the lines of held_out.jsonl that kept moments lack, as training would have; return how many were added.

    So a run that was trained before it was looked at has them too. A run that is being trained is left alone, and one
    whose log.held_out_images is 0. ``progress(done, total)`` counts moments. Raises UserError where the file cannot be
    written.
    """
    try:
        lock = run.lock()
    except UserError:  # whoever trains it looks at it
        return 0
    with lock:
        device = build.device(run.config.train.device)
        looks = HeldOut(run, store, max(run.saved_steps(), default=0), device)
        missing = [step for step in run.saved_steps() if step in milestones(run) and looks.due(step)]
        done = itertools.count(1)
        for step in missing:
            net = build.network(run.config, device)
            net.load_state_dict(weights_of(run.load(step), ema=True))
            net.eval().requires_grad_(False)
            denoiser = build.denoiser(run.config, net, build.dtype(run.config.train.dtype, device))
            looks.look(denoiser, step, Watch(), Stop(install=False))
            if progress is not None:
                progress(next(done), len(missing))
        lines = sorted(run.held_out(), key=lambda line: line["step"])
        if lines != run.held_out():  # those added, now or by a call that was killed, stand in their places
            keep_lines(run.held_out_file, lines, lines[-1]["step"])
    return len(missing)
