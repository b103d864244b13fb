"""Where an edit goes: one picture with its sidecar, and the results one by one next to it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstir.edit.edits import Edited
from unstir.errors import UserError
from unstir.pictures.grid import to_picture
from unstir.runs import sidecar
from unstir.runs.files import replacing

POOR = 30.0
"""Decibels below which an inversion is called poor: a difference that anyone sees."""


LONGEST = 60
"""Characters of a part of a file's name, so that file systems take one of two parts."""


@dataclass(frozen=True)
class Target:
    """The picture of an edit: ``out``, or a file in ``folder`` of a name made of ``parts`` and all that decides it.

    With ``singles`` each result is a file too, OUT-0.png, ... The files that are ``read`` are never replaced. Raises
    UserError where the picture, or a single result, cannot be written or would replace what is not an edit's.
    """

    out: Path | None
    folder: Path
    parts: Sequence[str | int | Path]
    read: Sequence[Path] = ()
    singles: bool = False

    def __post_init__(self) -> None:
        if self.out is None:
            sidecar.check(self.folder / "any.png")
            return
        single = re.compile(re.escape(self.out.stem) + r"-\d+\.png")
        own = [path for path in self.out.parent.glob("*.png") if single.fullmatch(path.name)] if self.singles else []
        if edited := {path.resolve() for path in self.read} & {path.resolve() for path in (self.out, *own)}:
            raise UserError(
                f"--out {self.out} would replace {edited.pop().name}, the image that is edited; name another file"
            )
        sidecar.check(self.out, own)

    def save(self, edited: Edited) -> tuple[str, ...]:
        """Write the picture and what was asked besides; return in words where, and what it cost."""
        file = self.out or self.folder / self._name(edited.settings)
        singles = sidecar.numbered(file, len(edited.made) if self.singles else 0)
        measured: dict[str, Any] = {"calls": edited.calls}
        if edited.psnr:
            measured["psnr"] = [None if value == math.inf else value for value in edited.psnr]
        if singles:
            measured["singles"] = len(singles)
        command = f"unstir edit {edited.settings['edit']}"
        sidecar.save(file, sidecar.png(edited.picture()), command, edited.settings, **measured)
        for path, pixels in zip(singles, edited.made, strict=False):
            with replacing(path) as partial:
                to_picture(pixels).save(partial, format="png")
        return (
            f"picture  {file}",
            *([f"singles  {singles[0]} to {singles[-1].name}"] if singles else []),
            f"calls    {edited.calls} of the network",
            *([f"PSNR     {' and '.join(f'{value:.1f}' for value in edited.psnr)} dB"] if edited.psnr else []),
        )

    def _name(self, settings: dict[str, Any]) -> str:
        parts = [part.stem if isinstance(part, Path) else re.sub(r"[^\w-]+", "-", str(part)) for part in self.parts]
        name = "-".join([settings["edit"], *(part[:LONGEST] for part in parts)])
        return f"{name}-seed{settings['chain']['seed']}-{sidecar.digest(settings)}.png"


def advice(edited: Edited) -> str:
    """What helps where an inversion went poorly; "" where it did not."""
    if edited.psnr and min(edited.psnr) < POOR:
        return "little of the image is in the noise found; more --steps, --refinements or --spacing log_snr help"
    return ""
