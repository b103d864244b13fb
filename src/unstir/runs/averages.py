"""An average of weights of any width, made of those that a run keeps."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.runs import checkpoint
from unstir.runs.checkpoint import Checkpoint
from unstir.theory.averages import WIDTHS, combination

if TYPE_CHECKING:
    from unstir.runs.run import Run

MOST_ERROR = 0.1  # of the profile of an average that is made of others, relative


def power_average(run: "Run", found: Checkpoint, width: float) -> dict[str, Tensor]:
    """The weights at the step of a checkpoint of a run, averaged by a power function of any ``width`` of the training.

    They are made of the power averages in it and in the slim files of earlier steps (`theory.averages`). Raises
    UserError where the run keeps none, or those saved are too few to make this one.
    """
    step, own = found.step, found.part("model")
    if not run.config.train.power_ema or not step:
        without = f"needs power averages, which {run.path} has not at step {step}"
        raise UserError("ema_width", width, without, "train with train.power_ema")
    steps = [*(earlier for earlier, _ in checkpoint.listed(run.weights) if earlier < step), step]
    shares, error = combination([(earlier, saved) for earlier in steps for saved in WIDTHS], (step, width))
    if error > MOST_ERROR:
        wrong = f"has an error of {error:.0%} at step {step} of {run.path}, above the {MOST_ERROR:.0%} allowed"
        raise UserError("ema_width", width, wrong, f"take a width nearer to {WIDTHS[0]}..{WIDTHS[1]}")
    total, left = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in own.items()}, iter(shares)
    for earlier in steps:
        file = found if earlier == step else run.load(earlier)
        for saved in WIDTHS:
            part, share = file.part(f"power.{saved}"), next(left)
            for name, t in total.items():
                t += share * part[name]
    return {name: t.to(own[name].dtype) for name, t in total.items()}
