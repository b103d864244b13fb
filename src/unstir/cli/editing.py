"""`unstir edit`: inpaint, vary, invert, blend and morph."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from unstir.cli.app import app
from unstir.cli.sampling import ChainOptions
from unstir.errors import UserError
from unstir.runs.sections import SpacingName

if TYPE_CHECKING:
    from unstir.edit import Edited
    from unstir.runs.run import Run

edit = App(name="edit", help="Fill in, vary, invert, blend and morph images with a trained run.")
app.command(edit)


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every edit takes."""

    seed: int = 0
    """Result i is a function of the seed and i."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic inside the network."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1" or "mps"."""
    checkpoint: int | None = None
    """The saved step whose weights are used; by default the newest."""
    ema: bool = True
    """Use the averaged weights where the run has them."""
    out: Path | None = None
    """The PNG file to write; by default one in RUN/edits, named after the command and the image."""


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class Calls:
    """Which times are visited; what is left out is taken from the run's [grids] settings."""

    steps: int | None = None
    """How many of the T times are visited, 1 to T."""
    spacing: SpacingName | None = None
    """Which of them."""
    clip: bool | None = None
    """Clamp the estimate of the clean image to [-1, 1] at each step."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    edited: "Edited"
    file: Path


def _do(
    run: Path, common: Common, chain: Any, name: str, work: Callable[..., "Edited"], *inputs: Any, **settings: Any
) -> _Done:
    """Open the run, do the work under a progress bar, write the picture and say where it is."""
