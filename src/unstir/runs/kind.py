"""The kind of a run: what its weights answer and where they came from, and so what can be done with them.

Weights that were trained to denoise estimate means, of which every sampler but consistency makes images. Weights that
`unstir distill` made learned the ends of a teacher's paths: they estimate images, in few calls. Weights that
`unstir import` or `unstir pull` brought come from elsewhere, and their training is not known here.
"""

from dataclasses import dataclass
from pathlib import Path

from unstir.chain import FAST, Chain
from unstir.errors import Remedy, UserError

OTHER = "name the run that it was distilled from"


@dataclass(frozen=True)
class Kind:
    """Whether the weights of a run learned from a teacher's paths, and their ``origin``, "" where they began here."""

    has_teacher: bool = False
    origin: str = ""

    @property
    def trained_here(self) -> bool:
        """Whether the data, the log and the length of the training are known."""
        return not self.origin

    @property
    def passes(self) -> int:
        """How many forward passes the training on an image costs: the backward pass is two, a teacher's two more."""
        return 5 if self.has_teacher else 3

    def takes(self, sampler: str) -> bool:
        """Whether a sampler makes images of what the weights estimate."""
        return (sampler == "consistency") == self.has_teacher

    def usual(self, chain: Chain, T: int) -> Chain:
        """How many images are drawn by default: as the run's own ``chain`` of at most T steps, by a fast sampler."""
        if self.has_teacher:
            return chain
        return chain.changed(sampler=FAST.sampler, steps=min(FAST.steps, T), spacing=FAST.spacing)

    def check(self, folder: Path, sampler: str, guide: str | None) -> None:
        """Raise UserError where the weights in ``folder`` cannot be sampled so, or led away from a ``guide``."""
        if sampler != "consistency":
            why = f", and is sampled by consistency, not by {sampler}"
            self.check_means(folder, why, f"for other samplers {OTHER}")
        elif not self.has_teacher:
            needs = f"needs a distilled run, which {folder} is not"
            raise UserError("sampler", sampler, needs, f"make one with unstir distill {folder} --out RUN2")
        if guide is not None:
            self.check_means(folder, ", and cannot be guided", f"leave guide={guide} out")

    def check_means(self, given: object, why: str, remedy: str = OTHER, key: str = "") -> None:
        """Raise UserError, with ``why`` and the ``remedy``, where the weights that are ``given`` estimate images."""
        if self.has_teacher:
            raise UserError(key, given, f"was distilled{why}", remedy)

    def check_trained_here(self, folder: Path, why: str, remedy: Remedy) -> None:
        """Raise UserError where the training in ``folder`` is not known, with ``why`` that does not do."""
        if not self.trained_here:
            raise UserError("", folder, f"was imported{why}", remedy)
