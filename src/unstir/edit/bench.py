"""A run's denoiser made ready to edit with."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoise, Labelled, labelled
from unstir.diffusion.draw import Chain, steered
from unstir.diffusion.samplers import Step
from unstir.errors import UserError
from unstir.pixels import to_uint8
from unstir.runs import build
from unstir.runs.guide import Guide, check_guide, used, weaker
from unstir.runs.provenance import provenance
from unstir.runs.run import Run
from unstir.theory.variance import check_variance

BATCH = 64
"""Images computed at once."""

MOST = 10_000
"""Results in one picture."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to compute: the ``chain``, the weights (of a saved ``step``, or the newest; averaged if ``ema``), and where.

    ``label`` is the class of the image, needed where the network knows classes unless it was trained with some labels
    hidden. ``num`` results are made; result i is a function of ``chain.seed`` and i. Guidance leads away from ``guide``
    or, with None, from the network without its label. What has no use for a part of the chain leaves it aside: filling
    in is always ancestral, inverting is DDIM without randomness or guidance.
    """

    chain: Chain
    num: int = 1
    label: int | None = None
    step: int | None = None
    guide: Guide | None = None
    ema: bool = True
    device: str = "auto"
    dtype: str = "float32"


class Bench:
    """A run's denoiser made ready for a chain: what it is told, what it is led away from, and its calls counted."""

    def __init__(self, run: Run, settings: Settings, chain: Chain) -> None:
        if settings.num < 1:
            raise UserError(f"num={settings.num} must be at least 1")
        if settings.num > MOST:
            raise UserError(f"num={settings.num} is more than {MOST}, the most for one picture; use several seeds")
        check_variance(chain.variance, run.config.diffusion.learned_variance)
        chain.check(build.schedule(run.config.diffusion))
        self.label = checked_label(run, settings.label)
        if settings.guide is None and settings.label is None and run.config.train.label_dropout:
            chain = chain.unguided()  # the network is not told a class that it could be led to
        self.run, self.num, self.chain, self.settings = run, settings.num, chain, settings
        self.calls = 0
        self.loaded = run.load(settings.step)
        how: dict[str, Any] = {"ema": settings.ema, "device": settings.device, "dtype": settings.dtype}
        self.denoiser = run.denoiser(loaded=self.loaded, **how)
        self.guide = None
        if settings.guide is not None:
            check_guide(settings.guide, run, self.loaded.step, chain.guidance)
            if settings.label is None:  # the guide has to do without a class too
                checked_label(settings.guide.opened(run), None)
            self.guide = weaker(settings.guide, run, **how)
        self.process = self.denoiser.process
        self.device = next(self.denoiser.net.parameters()).device

    def recorded(self, edit: str, files: dict[str, Path], **how: Any) -> dict[str, Any]:
        """Everything that decides the pixels of an ``edit``, as JSON can hold it: what was asked, what was in force.

        ``files`` are the picture files that were read, by what they are: each is recorded by its name and SHA-256.
        """
        asked = self.settings
        return {
            "edit": edit,
            **{what: {"name": path.name, "sha256": _sha256(path)} for what, path in files.items()},
            **how,
            "num": self.num,
            "label": asked.label,
            "classes": [
                self.run.data.classes[label] for label in how.get("labels") or [asked.label] if label is not None
            ],
            "chain": dataclasses.asdict(self.chain),
            "step": self.loaded.step,
            "ema": asked.ema,
            "guide": asked.guide and dataclasses.asdict(asked.guide),
            **provenance(self.run, used(self.run, self.loaded, asked.guide), asked.ema, asked.device, asked.dtype),
        }

    def told(self, indices: Tensor, label: int | None) -> Labelled:
        """The denoiser told one class, for the batch of these indices."""
        return labelled(self.denoiser, None if label is None else torch.full_like(indices, label))

    def knowing(self, label: int | None) -> Denoise:
        """The denoiser told one class, for batches of any size."""
        return lambda x_t, t: self.denoiser(x_t, t, label)

    def weak(self, indices: Tensor, label: int | None) -> Labelled | None:
        """What guidance leads away from: the guide told a class, or the network told none where it can do without."""
        if self.guide is not None:
            return self.guide(None if label is None else torch.full_like(indices, label))
        hidden = self.run.hidden_labels(indices)
        return None if hidden is None else labelled(self.denoiser, hidden)

    def steered(self, strong: Denoise, weak: Denoise | None = None, indices: Tensor | None = None) -> Denoise:
        """The denoiser as `draw` would use it: guided and clamped as the chain says."""
        return steered(strong, self.chain, self.process, weak, indices)

    def count(self, progress: Progress | None, total: int) -> None:
        """Count each network call from now on, and tell ``progress`` of it, out of ``total``."""

        def called(*_: Any) -> None:
            self.calls += 1
            if progress is not None:
                progress(self.calls, total)

        self.denoiser.net.register_forward_hook(called)

    @torch.inference_mode()
    def results(
        self, chain: Callable[[Tensor], Iterable[Step]], calls: int, progress: Progress | None, cells: int = 1
    ) -> Tensor:
        """What the chain makes of the results' indices, ``cells`` for each of num, in batches: uint8 [n, C, H, W]."""
        batches = torch.split(torch.arange(self.num * cells, device=self.device), BATCH)
        self.count(progress, calls * len(batches))
        return torch.cat([to_uint8(last(chain(indices))) for indices in batches])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def last(steps: Iterable[Step]) -> Tensor:
    """Where the steps end."""
    *_, end = steps
    return end.x


def checked_label(run: Run, label: int | None, option: str = "--label") -> int | None:
    """The label for the network; where none is given, the one that says nothing, if it was trained with that."""
    classes, hidden = run.config.model.num_classes, run.hidden_labels(torch.zeros(1, dtype=torch.int64))
    if label is None and classes and hidden is None:
        raise UserError(f"this network knows {classes} classes; name the image's, 0..{classes - 1}, with {option}")
    if label is not None and not classes:
        raise UserError(f"label={label} was given, but this network knows no classes; leave it out")
    if label is not None and not 0 <= label < classes:
        raise UserError(f"label={label} is outside 0..{classes - 1}, the classes of this run")
    return label if label is not None or hidden is None else int(hidden)
