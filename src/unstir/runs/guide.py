"""The weaker network that guidance can lead away from: a saved step of the same run, or another run's weights.

Autoguidance (Karras et al. 2024, "Guiding a diffusion model with a bad version of itself"): it does best as a smaller
network, trained less, on the same data; it needs no classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Labelled, labelled
from unstir.errors import UserError
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run


@dataclass(frozen=True)
class Guide:
    """The weights of a saved ``step``, of the run in the folder ``run``; "" is the run that is guided."""

    step: int
    run: str = ""

    def __str__(self) -> str:
        """As `guide_of` reads it."""
        return f"{self.run}@{self.step}" if self.run else str(self.step)

    def opened(self, guided: Run) -> Run:
        """The run whose weights these are, ``guided`` itself or another. Raises UserError as `Run.open`."""
        return Run.open(self.run) if self.run else guided


def guide_of(text: str | None, guided: Run) -> Guide | None:
    """The guide that a text names; None is none. Raises UserError for what is no run, or has no saved weights.

    "1000" is a step of the same run, "runs/small" the newest weights of another, "runs/small@1000" a step of it.
    """
    if text is None:
        return None
    if text.isdecimal():
        return Guide(int(text))
    folder, step = run_and_step(text)
    if step is not None:
        return Guide(step, str(Path(folder)))
    if not Path(text).is_dir():
        raise UserError(f"guide={text!r} is neither a step nor a folder; write 1000, RUN or RUN@1000")
    return Guide(Run.open(text).newest_step(), str(Path(text)))


def run_and_step(text: str) -> tuple[str, int | None]:
    """The folder and the saved step of "RUN@STEP"; the whole text and None where it has no step or is a path itself."""
    folder, at, step = text.rpartition("@")
    if at and step.isdecimal() and not Path(text).exists():
        return folder, int(step)
    return text, None


def used(run: Run, loaded: Checkpoint, guide: Guide | None) -> list[Checkpoint]:
    """The checkpoints that images are made from: the run's own, and its guide's. Raises UserError as `Run.load`."""
    return [loaded] if guide is None else [loaded, guide.opened(run).load(guide.step)]


def check_guide(guide: Guide, guided: Run, step: int, scale: float) -> None:
    """Raise UserError for a guide that has no effect at this ``scale``, was not saved, or does not fit the run.

    It must have images of the same shape, as many classes or none, the same noise and prediction; its size and
    training are free. ``step`` is that of the weights which are guided.
    """
    if scale in (0, 1):
        alone = "has no effect" if scale == 1 else "is alone, which is to sample from it,"
        raise UserError(f"guide={guide} {alone} at guidance={scale:g}; give a guidance scale, such as 2")
    other = guide.opened(guided)
    if guide.step not in other.saved_steps():
        saved = ", ".join(map(str, other.saved_steps())) or "none"
        raise UserError(f"guide={guide} was not saved; the steps of {other.path} are {saved}")
    if other.path.resolve() == guided.path.resolve() and guide.step == step:
        raise UserError(f"guide={guide} is the very step that is sampled; name an earlier one")
    ours, theirs = (_must_agree(run) for run in (guided, other))
    if theirs["classes"] == 0:  # it is told none
        theirs["classes"] = ours["classes"]
    if unlike := [f"{key} {theirs[key]}, the run {ours[key]}" for key in ours if theirs[key] != ours[key]]:
        raise UserError(f"guide={guide} does not fit {guided.path}: it has {'; '.join(unlike)}")
    tables = [build.schedule(run.config.diffusion).log_abar for run in (guided, other)]
    if not torch.equal(*tables):
        raise UserError(f"guide={guide} does not fit {guided.path}: its noise schedule is another")


def weaker(guide: Guide, guided: Run, **how: Any) -> Callable[[Tensor | None], Labelled]:
    """The guide's denoiser, to be given the labels of a batch; ``how`` are the options of `Run.denoiser`."""
    other = guide.opened(guided)
    denoiser = other.denoiser(step=guide.step, **how)
    knows = other.config.model.num_classes > 0
    return lambda label: labelled(denoiser, label if knows else None)


def _must_agree(run: Run) -> dict[str, Any]:
    return {
        "shape": "x".join(map(str, run.data.shape)),
        "classes": run.config.model.num_classes,
        "T": run.config.diffusion.T,
        "predict": run.config.diffusion.predict,
    }
