"""A run: its folder, and the models of its saved weights."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from unstir.errors import UserError
from unstir.runs import checkpoint
from unstir.runs.folder import RunFolder
from unstir.runs.loading import check_same, model_of
from unstir.runs.model import Model

logger = logging.getLogger(__name__)


class Run(RunFolder):
    """A run folder, and what was trained in it."""

    def newest_step(self) -> int:
        """The highest step at which weights were saved; UserError where none were."""
        return self._saved()[-1]

    def saved_steps(self) -> list[int]:
        """The steps at which weights can be loaded, rising."""
        return sorted({step for folder in (self.checkpoints, self.weights) for step, _ in checkpoint.listed(folder)})

    def model(
        self,
        step: int | None = None,
        *,
        ema: bool | float = True,
        device: str = "auto",
        dtype: str = "float32",
        compile: str = "no",
        guide: str | Model | None = None,
    ) -> Model:
        """The trained model: of the newest file that verifies, or of one saved ``step``, as `load`.

        ``ema`` takes the averaged weights where the run has them; a number is the width of another average, a fraction
        of the training so far, made of those that a run with train.power_ema keeps. Under "bfloat16" the weights of the
        U-Net are cast once. ``compile`` is "no", "yes" or "graphs" (`build`). ``guide`` is what guidance leads away
        from: a model, "1000" for a step of the same run, "runs/small" for the newest weights of another,
        "runs/small@1000" for a step of it. Raises UserError where nothing was saved, or not that step, a slim file has
        no raw weights, the averages do not make the one asked for, the device or a compiler is absent, or the guide is
        none of these or does not fit.
        """
        how: dict[str, Any] = {"ema": ema, "device": device, "dtype": dtype, "compile": compile}
        model = model_of(self, self.load(step), **how)
        return model if guide is None else replace(model, guide=self.guide(guide, **how))

    def guide(self, named: object, **how: Any) -> Model:
        """The model that a guide names, as `model` reads it; ``how`` are the options of `model`.

        An average of a width is made of the guide's weights too; a guide whose run keeps no averages to make it of has
        its ordinary average.
        """
        if isinstance(named, Model):
            return named
        try:
            if not isinstance(named, str):
                raise UserError("guide", named, "is no text and no Model", 'give "1000", "RUN" or "RUN@1000"')
            folder, step = (self.path, int(named)) if named.isdecimal() else run_and_step(named)
            if step is None and not Path(folder).is_dir():
                raise UserError("guide", named, "is neither a step nor a folder", "give 1000, RUN or RUN@1000")
            of = self if folder is self.path else Run.open(folder)
            if not of.config.train.power_ema:
                how["ema"] = bool(how.get("ema", True))
            return of.model(step, **how)
        except UserError as error:
            raise error if error.key == "guide" else UserError("guide", named, f"cannot be used: {error}") from None

    def _saved(self) -> list[int]:
        if steps := self.saved_steps():
            return steps
        raise UserError("", self.path, "has no saved weights yet", f"continue it with unstir train --out {self.path}")

    def load(self, step: int | None = None) -> checkpoint.Checkpoint:
        """The newest file that verifies, full or slim, or that of one saved step.

        Logged is where no file of a newer step could be read. Raises UserError as `model` and `check_same`.
        """
        steps, problems = self._saved(), list[str]()
        if step is not None and step not in steps:
            raise UserError("step", step, "was not saved", f"{self.path} has {', '.join(map(str, steps))}")
        for candidate in [step] if step is not None else reversed(steps):
            newer = "; ".join(problems)
            for folder in (self.checkpoints, self.weights):
                try:
                    found = checkpoint.load(folder / checkpoint.file_name(candidate))
                except UserError as error:
                    problems.append(str(error))
                else:
                    check_same(self, found)
                    if newer:
                        logger.warning(f"{newer}; an earlier step is used")
                    return found
        raise UserError("; ".join(problems))


def run_and_step(text: str) -> tuple[str, int | None]:
    """The folder and the saved step of "RUN@STEP"; the whole text and None where it has no step or is a path itself."""
    folder, at, step = text.rpartition("@")
    if at and step.isdecimal() and not Path(text).exists():
        return folder, int(step)
    return text, None
