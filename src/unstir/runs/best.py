"""Which of a run's saved steps has the least held-out loss."""

import logging
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from unstir.errors import UserError
from unstir.progress import counted

logger = logging.getLogger(__name__)


def best_step(folder: Path, saved: Collection[int], held_out: Sequence[dict[str, Any]]) -> int:
    """The ``saved`` step of the run in ``folder`` whose held-out images have the least mean loss, by its lines of
    ``held_out``, over the times and images last measured.

    The loss is logged with its standard error over images. Raises UserError where no saved step was measured.
    """
    lines = [line for line in held_out if line["of_held_out"]]
    alike = {
        line["step"]: line["of_held_out"]
        for line in lines
        if (line["times"], line["num_held_out"]) == (lines[-1]["times"], lines[-1]["num_held_out"])
    }
    losses = {step: fmean(of_images) for step, of_images in alike.items() if step in saved}
    losses = {step: loss for step, loss in losses.items() if math.isfinite(loss)}
    if not losses:
        raise UserError("step", "best", f"needs held-out losses, of which {folder} has none", {"step": None})
    step: int = min(losses, key=losses.__getitem__)
    error = stdev(alike[step]) / len(alike[step]) ** 0.5 if len(alike[step]) > 1 else math.nan
    of = counted(len(losses), "snapshot")
    logger.info(f"{folder}: step {step} has the least held-out loss of {of}, {losses[step]:.4g} ± {error:.1g}")
    return step
