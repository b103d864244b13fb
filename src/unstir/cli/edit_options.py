"""What the commands of `unstir edit` take alike, and how each of them is done."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

from unstir.cli import beside
from unstir.cli.sampling import ChainOptions
from unstir.errors import UserError
from unstir.runs.sections import SpacingName

if TYPE_CHECKING:
    from unstir.edit import Edited


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """What every edit takes."""

    out: Path | None = None
    """The PNG file to write, with its settings in a JSON file beside; by default one in RUN/edits for each setting."""
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


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class TimeOptions:
    """Which times are visited; what is left out is taken from the run's [grids] settings."""

    steps: int | None = None
    """How many of the T times are visited, 1 to T."""
    spacing: SpacingName | None = None
    """Which of them."""
    clip: bool | None = None
    """Clamp the estimate of the clean image to [-1, 1] at each step."""

    def over(self, base: Any) -> Any:
        """The chain ``base`` with what is given here in its place."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None and key != "guide"}
        return dataclasses.replace(base, **given)


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class FillOptions(TimeOptions):
    """What filling in takes beside."""

    variance: Literal["auto", "small", "large", "learned"] | None = None
    """Variance of the chain; auto: learned if it was, else large (beta) over all T steps, small (beta~) over fewer."""
    guidance: float | None = None
    """Scale of guidance towards the label, or away from a guide: 1 is none."""
    guide: str | None = None
    """What guidance leads away from: a less trained step (1000), another run (its folder), or its step (RUN@1000); by
    default the network without its label."""
    threshold: float | None = None
    """Quantile of dynamic thresholding, such as 0.995, in place of the plain clamp."""


def carry_out(
    run: Path,
    name: str,
    doing: str,
    chain: ChainOptions | TimeOptions,
    options: EditOptions,
    work: Callable[[Any, Any, Any], "Edited"],
    **of_image: Any,
) -> int:
    """Do the work under a bar, write its picture and settings, and say where (and how well an inversion came back)."""
    from unstir import console
    from unstir.edit import Settings
    from unstir.runs.guide import guide_of
    from unstir.runs.run import Run

    opened = Run.open(run)
    folder = run / "edits"
    beside.check(options.out or folder / "any.png")
    guidance, guide = getattr(chain, "guidance", None), guide_of(getattr(chain, "guide", None), opened)
    needs_label = opened.config.train.label_dropout and guide is None and guidance not in (None, 1)
    if needs_label and of_image.get("label", 0) is None:
        raise UserError(f"guidance={guidance} leads towards a class; name it with --label")
    settings = Settings(
        chain=dataclasses.replace(chain.over(opened.chain()), seed=options.seed),
        step=options.checkpoint,
        guide=guide,
        ema=options.ema,
        device=options.device,
        dtype=options.dtype,
        **of_image,
    )
    with console.counting(console.stderr(), doing, "network calls") as progress:
        edited = work(opened, settings, progress)
    file = options.out or folder / f"{name}-seed{options.seed}-{beside.digest(edited.settings)}.png"
    measured = {} if edited.psnr is None else {"psnr": edited.psnr}
    beside.save(file, edited.picture(), f"unstir edit {edited.settings['edit']}", edited.settings, **measured)
    print(f"picture  {file}" + ("" if edited.psnr is None else f"\nPSNR     {edited.psnr:.1f} dB"))
    return 0
