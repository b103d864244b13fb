"""`unstir distill`."""

from pathlib import Path

from pydantic.dataclasses import dataclass

from unstir.cli.app import app, show
from unstir.cli.options import FLAT, RunFolder
from unstir.jobs.process import place, torchrun_group
from unstir.runs.sections import STRICT, Positive, PositiveSpan


@FLAT
@dataclass(frozen=True, kw_only=True, config=STRICT)
class DistillOptions:
    """What may differ from RUN's training."""

    length: PositiveSpan | None = None
    """How long to train, such as "2000 steps" or "20 epochs"; by default that of RUN."""
    lr: Positive | None = None
    """Peak of the learning rate; by default half that of RUN."""


@app.command
def distill(run: RunFolder, /, *, out: Path, options: DistillOptions = DistillOptions()) -> int:
    """Train a run that samples in 1, 2 or 4 calls, with RUN as its teacher, best a finished one.

    The new run begins with RUN's averaged weights. It learns the images in which RUN's paths from noise end, and is
    sampled by consistency. The same command continues it.

    Example: `unstir distill runs/digits --out runs/fast && unstir sample runs/fast --steps 1`

    Args:
        out: Folder of the new run.
    """
    from unstir.console import TrainingDisplay
    from unstir.jobs.process import Signals
    from unstir.runs.run import Run
    from unstir.train.distill import distill_run

    stop, display = Signals(), TrainingDisplay()
    with torchrun_group(Run.open(run).config.train.device) as group:
        done = distill_run(run, out, options.length, options.lr, observer=display, stop=stop, group=group)
    show(*done.conclusion)
    return 0 if done.finished or place().rank else stop.status
