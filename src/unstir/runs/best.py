"""Which of a run's saved steps has the least held-out loss."""

import logging
import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from unstir.errors import UserError
from unstir.progress import counted

if TYPE_CHECKING:
    from unstir.runs.run import Run

logger = logging.getLogger(__name__)


def best_step(run: "Run") -> int:
    """The saved step whose held-out images have the least mean loss, over the times and images last measured.

    The loss is logged with its standard error over images. Raises UserError where no saved step was measured.
    """
    saved, lines = set(run.saved_steps()), [line for line in run.held_out() if line["of_held_out"]]
    alike = {
        line["step"]: line["of_held_out"]
        for line in lines
        if (line["times"], line["num_held_out"]) == (lines[-1]["times"], lines[-1]["num_held_out"])
    }
    losses = {step: fmean(of_images) for step, of_images in alike.items() if step in saved}
    losses = {step: loss for step, loss in losses.items() if math.isfinite(loss)}
    if not losses:
        raise UserError("step", "best", f"needs held-out losses, of which {run.path} has none", {"step": None})
    step: int = min(losses, key=losses.__getitem__)
    error = stdev(alike[step]) / len(alike[step]) ** 0.5 if len(alike[step]) > 1 else math.nan
    of = counted(len(losses), "snapshot")
    logger.info(f"{run.path}: step {step} has the least held-out loss of {of}, {losses[step]:.4g} ± {error:.1g}")
    return step
