"""A run as the checks see it: all that is read, drawn or measured, once, before the first check."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unstir.data import Store
from unstir.doctor.image_stats import ImageStats
from unstir.doctor.numbers import Lines
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run

MISSING = {
    "lines": "no line in metrics.jsonl yet",
    "held_out": "no line in held_out.jsonl",
    "loaded": "no saved weights that are whole",
    "store": "the data is not there",
    "images": "the data is not there",
}
"""Why a part of the facts is None or empty. Samples and errors have several reasons: `RunFacts.unmeasured`."""


@dataclass(frozen=True)
class SavedFile:
    """A checkpoint on disk: its step, its path, "full" or "slim", its size in bytes, and what is wrong with it."""

    step: int
    path: Path
    kind: str
    size: int
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Samples:
    """Images drawn from a run, ``made`` uint8 [N, C, H, W] in 0..255, and ``real`` ones [M, C, H, W] to compare with.

    Where the network knows classes both have each class in the same proportion, so that a difference is no difference
    of classes. ``chain`` says in words how they were drawn.
    """

    made: Tensor
    real: Tensor
    chain: str


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared errors of training images, float64 [N], with the same times and noise, in evaluation mode.

    Of the ``raw`` weights and of the ``average``; None where the newest file has only one of them.
    """

    raw: Tensor | None
    average: Tensor | None


@dataclass(frozen=True)
class Needs:
    """Bytes that training takes, and bytes that the machine has.

    ``weights`` is for weights, gradients, moments and average; ``activations`` what the backward pass keeps of a
    micro-batch, measured on an image. ``memory`` is what the training device has, ``disk`` what is free where the run
    lies, ``files`` what checkpoints still to come will take; ``device`` names the device.
    """

    weights: int
    activations: int
    memory: int
    disk: int
    files: int
    device: str


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run and what is known of it. Parts that could not be had are None or empty; `why_not` gives the reason.

    ``run`` has the settings of its weights where ``settings_problem`` says that those in config.toml are others.
    ``lines`` are those of metrics.jsonl, ``held_out`` those of held_out.jsonl, ``files`` every checkpoint with what is
    wrong with it, ``loaded`` the newest that is whole. ``unmeasured`` says why there are no samples and errors.
    """

    run: Run
    lines: Lines
    files: tuple[SavedFile, ...]
    store: Store | None
    store_problem: str
    needs: Needs
    held_out: Lines = ()
    loaded: Checkpoint | None = None
    settings_problem: str = ""
    images: ImageStats | None = None
    samples: Samples | None = None
    errors: Errors | None = None
    unmeasured: str = ""

    @property
    def step(self) -> int:
        """The optimiser steps taken, according to metrics and files."""
        logged: int = self.lines[-1]["step"] if self.lines else 0
        return max([logged, *(file.step for file in self.files if not file.problem)])

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.run.length

    def why_not(self, part: str) -> str:
        """Why a part is None or empty; an empty string where it is there."""
        return MISSING.get(part, self.unmeasured) if getattr(self, part) in (None, ()) else ""
