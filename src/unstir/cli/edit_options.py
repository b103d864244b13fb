"""What the commands of `unstir edit` take alike, and how each of them is done."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

from unstir.cli.app import say, show
from unstir.cli.chain_options import Given
from unstir.errors import UserError
from unstir.runs import sidecar
from unstir.runs.files import replacing

if TYPE_CHECKING:
    from unstir.edit import Edited

POOR = 30.0
"""Decibels below which an inversion is called poor: a difference that anyone sees."""


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """What every edit takes."""

    out: Path | None = None
    """The PNG file to write, with its settings in a JSON file beside; by default one in RUN/edits for each setting."""
    singles: bool = False
    """Also write each result as a file of its own, at the run's resolution: OUT-0.png, OUT-1.png, ..."""
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


def carry_out(
    run: Path,
    name: str,
    doing: str,
    chain: Given,
    options: EditOptions,
    work: Callable[[Any, Any, Any], "Edited"],
    *images: Path,
    read: Sequence[Path] = (),
    **of_image: Any,
) -> int:
    """Do the work under a bar, write its picture and settings, and say where, at what cost and how well it went.

    Neither the ``images`` nor what else is ``read`` is replaced.
    """
    from unstir import console
    from unstir.edit.reading import notes_on
    from unstir.generate import Job
    from unstir.runs.run import Run

    opened = Run.open(run)
    folder = run / "edits"
    if options.out:
        _check(options.out, (*images, *read), options.singles)
    else:
        sidecar.check(folder / "any.png")
    guidance = chain.given().get("guidance")
    needs_label = opened.labels.has_null and chain.guide is None and guidance not in (None, 1)
    if needs_label and of_image.get("label", 0) is None:
        raise UserError(f"guidance={guidance} leads towards a class; name it with --label")
    named = {"label": opened.labels.number(of_image["label"])} if "label" in of_image else {}
    which: dict[str, Any] = {"ema": options.ema, "device": options.device, "dtype": options.dtype, "guide": chain.guide}
    model = opened.model(options.checkpoint, say=say, **which)
    usual = model.chain.changed(**chain.given(), seed=options.seed)
    job = Job(chain=usual, **({"num": 1} | of_image | named))
    with console.counting(doing, "network calls") as progress:
        edited = work(model, job, progress)
    for image in images:
        for note in notes_on(image, model.shape):
            say(f"{image}: {note}")
    file = options.out or folder / f"{name}-seed{options.seed}-{sidecar.digest(edited.settings)}.png"
    write(file, edited, options.singles)
    return 0


def _check(out: Path, images: Sequence[Path], singles: bool) -> None:
    """Raise UserError where the picture, or the single results, would replace what they must not."""
    single = re.compile(re.escape(out.stem) + r"-\d+\.png")
    own = [path for path in out.parent.glob("*.png") if single.fullmatch(path.name)] if singles else []
    if edited := {image.resolve() for image in images} & {path.resolve() for path in (out, *own)}:
        raise UserError(f"--out {out} would replace {edited.pop().name}, the image that is edited; name another file")
    sidecar.check(out, own)


def write(file: Path, edited: "Edited", singles: bool) -> None:
    """Write the picture with its settings, the results one by one if asked, and say what they cost."""
    from unstir.pictures.grid import to_picture

    measured: dict[str, Any] = {"calls": edited.calls}
    if edited.psnr:
        measured["psnr"] = [None if value == math.inf else value for value in edited.psnr]
    own = sidecar.numbered(file, len(edited.made) if singles else 0)
    if own:
        measured["singles"] = len(own)
    command = f"unstir edit {edited.settings['edit']}"
    sidecar.save(file, sidecar.png(edited.picture()), command, edited.settings, **measured)
    for path, pixels in zip(own, edited.made, strict=False):
        with replacing(path) as partial:
            to_picture(pixels).save(partial, format="png")
    show(f"picture  {file}")
    if own:
        show(f"singles  {own[0]} to {own[-1].name}")
    show(f"calls    {edited.calls} of the network")
    if edited.psnr:
        show(f"PSNR     {' and '.join(f'{value:.1f}' for value in edited.psnr)} dB")
        if min(edited.psnr) < POOR:
            say("little of the image is in the noise found; more --steps, --refinements or --spacing log_snr help")
