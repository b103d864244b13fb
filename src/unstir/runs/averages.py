"""An average of weights of any width, made of those that a run keeps."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unstir.errors import UserError
from unstir.runs import checkpoint
from unstir.runs.checkpoint import Checkpoint
from unstir.theory.averages import WIDTHS, combination

MOST_ERROR = 0.1  # of the profile of an average that is made of others, relative


def power_average(
    found: Checkpoint, width: float, folder: Path, load: Callable[[int], Checkpoint]
) -> dict[str, Tensor]:
    """The weights of a checkpoint of the run in ``folder``, averaged by a power function of any ``width``.

    They are made of the power averages in it and in the slim files of earlier steps (`theory.averages`), which ``load``
    reads. Raises UserError where the run keeps none, or those saved are too few to make this one.
    """
    step, own = found.step, found.part("model")
    if not found.config["train"]["power_ema"] or not step:
        without = f"needs power averages, which {folder} has not at step {step}"
        raise UserError("ema_width", width, without, "train with train.power_ema")
    steps = [*(earlier for earlier, _ in checkpoint.listed(folder / "weights") if earlier < step), step]
    shares, error = combination([(earlier, saved) for earlier in steps for saved in WIDTHS], (step, width))
    if error > MOST_ERROR:
        wrong = f"has an error of {error:.0%} at step {step} of {folder}, above the {MOST_ERROR:.0%} allowed"
        raise UserError("ema_width", width, wrong, f"take a width nearer to {WIDTHS[0]}..{WIDTHS[1]}")
    total, left = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in own.items()}, iter(shares)
    for earlier in steps:
        file = found if earlier == step else load(earlier)
        for saved in WIDTHS:
            part, share = file.part(f"power.{saved}"), next(left)
            for name, t in total.items():
                t += share * part[name]
    return {name: t.to(own[name].dtype) for name, t in total.items()}
