"""A run as the checks see it: all that is read, drawn or measured, once, before the first question is put."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unstir.data import Store
from unstir.doctor.near import Near
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.run import Run


@dataclass(frozen=True)
class SavedFile:
    """A checkpoint on disk: its step, its path, "full" or "slim", its size in bytes, and what is wrong with it."""

    step: int
    path: Path
    kind: str
    size: int
    problem: str = ""


@dataclass(frozen=True)
class ImageStats:
    """What one pass over a store's images says of them; of the training split unless ``held_out`` is named.

    ``mean`` and ``std`` are over all values, in the units of training, [-1, 1]; ``least`` and ``most`` in 0..255.
    ``flat`` counts images of one colour, ``copies`` those equal to an earlier one byte by byte, ``leaked`` held-out
    images that are in the training split too, ``near`` images with near copies among those looked at.
    """

    num: int
    held_out: int
    mean: float
    std: float
    least: int
    most: int
    flat: int
    copies: int
    leaked: int
    near: Near


@dataclass(frozen=True, eq=False)
class Samples:
    """Images drawn from a run, ``made`` uint8 [N, C, H, W] in 0..255, and as ``real`` ones [M, C, H, W] beside them.

    Where the network knows classes both have each class in the same proportion, so that a difference is no difference
    of classes. ``chain`` says in words how they were drawn.
    """

    made: Tensor
    real: Tensor
    chain: str


@dataclass(frozen=True, eq=False)
class Errors:
    """Squared errors a value of training images, float64 [N], with the same times and noise: of the ``raw`` weights
    and of the ``average`` (None where the newest file has one of them alone), in evaluation mode.
    """

    raw: Tensor | None
    average: Tensor | None


@dataclass(frozen=True)
class Needs:
    """Bytes that training takes, beside what the machine has.

    ``weights`` is of weights, gradients, moments and average; ``activations`` what the backward pass keeps of a
    micro-batch, measured on an image. ``memory`` is what the training device has, ``disk`` what is free where the run
    lies, ``files`` what checkpoints still to come will take; ``device`` names what ``memory`` is of.
    """

    weights: int
    activations: int
    memory: int
    disk: int
    files: int
    device: str


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run and what is known of it. Parts that could not be had are None or empty, with the reason in ``missing``.

    ``run`` has the settings of its weights where ``settings_problem`` says that those in config.toml are others.
    ``lines`` are those of metrics.jsonl, ``held_out`` those of held_out.jsonl, ``files`` every checkpoint with what is
    wrong with it, ``loaded`` the newest that is whole.
    """

    run: Run
    lines: tuple[dict[str, Any], ...]
    files: tuple[SavedFile, ...]
    store: Store | None
    store_problem: str
    needs: Needs
    held_out: tuple[dict[str, Any], ...] = ()
    loaded: Checkpoint | None = None
    settings_problem: str = ""
    images: ImageStats | None = None
    samples: Samples | None = None
    errors: Errors | None = None
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def step(self) -> int:
        """The optimiser steps taken, as far as metrics and files tell."""
        logged = self.lines[-1]["step"] if self.lines else 0
        return max([logged, *(file.step for file in self.files if not file.problem)])

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.run.length

    def why_not(self, part: str) -> str:
        """Why a part is None or empty; an empty answer where it is there."""
        there = getattr(self, part) not in (None, ())
        return "" if there else dict(self.missing).get(part, f"there is no {part}")
