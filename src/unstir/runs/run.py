"""A run: its folder, the models of its saved weights, and whether weights are of the run, as they must be."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.diffusion.denoiser import Denoiser
from unstir.errors import KeptSettingsError, UserError, quoted, short
from unstir.nn.config import UNET
from unstir.runs import build, checkpoint, toml
from unstir.runs.checkpoint import Checkpoint, content_hash
from unstir.runs.config import MAY_CHANGE, Config
from unstir.runs.folder import RunFolder
from unstir.runs.model import Model
from unstir.theory.averages import WIDTHS, combination
from unstir.theory.process import Process

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
        raise UserError("", self.path, "has no saved weights yet", f"go on: unstir train --out {quoted(self.path)}")

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


MOST_ERROR = 0.1  # of the profile of an average that is made of others, relative


def compare(saved: Config, asked: Config) -> dict[str, Any]:
    """What ``asked`` would change in a run, by dotted keys; KeptSettingsError for those that must not change."""
    old, new = toml.flat(saved), toml.flat(asked)
    changed = {key: new.get(key) for key in {**old, **new} if old.get(key) != new.get(key) and key != "recipe"}
    if fixed := [key for key in changed if key not in MAY_CHANGE]:
        kept = f"is {short(old.get(fixed[0]))} in the run, which keeps its settings"
        remedy = dict.fromkeys(fixed), "start another run in another folder"
        raise KeptSettingsError(tuple(fixed), new.get(fixed[0]), kept, remedy)
    return changed


def check_same(run: RunFolder, found: Checkpoint) -> None:
    """Raise UserError where weights are not of this run: they were trained with other settings or on other data."""
    ours, theirs = run.data.plain(), found.data
    if theirs.get("content_hash") == "":  # an imported run knows no data; it is compared with any
        theirs = {**theirs, **{key: ours[key] for key in ("counts", "content_hash")}}
    if theirs and theirs != ours:
        other = f"is not of the run {run.path}, but of other settings or other data"
        remedy = "remove it, or restore data.json from a copy"
        raise UserError("", f"the checkpoint of step {found.step}", other, remedy)


def model_of(
    run: RunFolder,
    found: Checkpoint,
    *,
    ema: bool | float = True,
    device: str = "auto",
    dtype: str = "float32",
    compile: str = "no",
) -> Model:
    """The model of a checkpoint of a run; arguments and errors as `Run.model`."""
    on, step = build.device(device), found.step
    build.find_own(run.config)
    build.check_compile(compile, on)
    weights = weights_of(found, ema) if isinstance(ema, bool) else _power_average(run, found, ema)

    def load(arithmetic: torch.dtype) -> Denoiser:
        net = build.network(run.config, on)
        if wrong := misfits(net.state_dict(), weights):
            unfit = f"has weights of step {step} that do not fit the network: {'; '.join(wrong[:3])}"
            raise UserError("", run.path, unfit, "use the same [model] settings")
        net.load_state_dict(weights)
        net.eval().requires_grad_(False)
        if run.config.model.type != UNET:  # one of the user's own gets float32 images, as in training
            return build.denoiser(run.config, net, arithmetic)
        return build.denoiser(run.config, net.to(arithmetic), torch.float32)

    how: dict[str, Any] = {"device": on, "dtype": dtype, "compile": compile, "ema": ema}
    kept = run.config.train.ema_decay > 0 and (run.config.kind.trained_here or found.ema)
    averaged = ema and kept if isinstance(ema, bool) else ema
    return Model(load=load, step=step, weights_sha256=content_hash(weights), averaged=averaged, **how, **_of(run))


def model_in_training(run: RunFolder, denoiser: Denoiser, step: int) -> Model:
    """The model that a run is training, with the denoiser as it is after ``step``; its weights have no hash."""
    device, averaged = next(denoiser.net.parameters()).device, run.config.train.ema_decay > 0
    return Model(load=lambda _: denoiser, step=step, weights_sha256="", averaged=averaged, device=device, **_of(run))


def _of(run: RunFolder) -> dict[str, Any]:
    """What every model of a run is alike in."""
    diffusion, settings = run.config.diffusion, toml.to_dict(run.config)
    return {
        "process": Process(build.schedule(diffusion)),
        "predict": diffusion.predict,
        "learned_variance": diffusion.learned_variance,
        "data": run.data,
        "labels": run.labels,
        "chain": run.chain(),
        "folder": run.path,
        "settings": {"model": settings["model"], "diffusion": settings["diffusion"]},
        "nrow": run.config.grids.nrow,
        "kind": run.config.kind,
    }


def weights_of(found: Checkpoint, ema: bool) -> dict[str, Tensor]:
    """The weights to sample from in a checkpoint: averaged if asked and there; UserError for raw ones that are not."""
    if found.kind == "slim":
        if found.ema and not ema:
            other = {"ema": True}, "choose a step of checkpoints/"
            raise UserError("ema", False, f"finds averages alone at step {found.step}", other)
        return found.part("model")
    return (found.part("ema") if ema else {}) or found.part("model")


def chosen_average(ema: bool, width: float | None) -> bool | float:
    """What `Run.model` takes as ``ema``, of an option for the average and one for its width; not both may be given."""
    if width is not None and not ema:
        raise UserError("ema_width", width, "is of an average", ({"ema_width": None}, {"ema": True}))
    return ema if width is None else width


def _power_average(run: RunFolder, found: Checkpoint, width: float) -> dict[str, Tensor]:
    """The weights at the step of a checkpoint of a run, averaged by a power function of any ``width`` of the training.

    They are made of the power averages in it and in the slim files of earlier steps (`theory.averages`). Raises
    UserError where the run keeps none, or those saved are too few to make this one.
    """
    step, own = found.step, found.part("model")
    if not run.config.train.power_ema or not step:
        without = f"needs power averages, which {run.path} has not at step {step}"
        raise UserError("ema_width", width, without, "train with train.power_ema")
    steps = [*(each for each, _ in checkpoint.listed(run.weights) if each < step), step]
    shares, error = combination([(each, saved) for each in steps for saved in WIDTHS], (step, width))
    if error > MOST_ERROR:
        wrong = f"has an error of {error:.0%} at step {step} of {run.path}, above the {MOST_ERROR:.0%} allowed"
        raise UserError("ema_width", width, wrong, f"take a width nearer to {WIDTHS[0]}..{WIDTHS[1]}")
    total, left = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in own.items()}, iter(shares)
    for each in steps:
        file = found if each == step else checkpoint.load(run.weights / checkpoint.file_name(each))
        check_same(run, file)
        for saved in WIDTHS:
            part, share = file.part(f"power.{saved}"), next(left)
            if misfit := misfits(own, part):
                problem = f"has damaged averages of step {each}: {misfit[0]}"
                raise UserError("", run.path, problem, "restore its file from a copy")
            for name, t in total.items():
                t += share * part[name]
    return {name: t.to(own[name].dtype) for name, t in total.items()}


def misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """What keeps weights from being those of a network that has ``own``, a phrase a tensor; empty where they fit."""
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is unknown" for name in weights if name not in own]
    wrong += [
        f"{name} is {list(weights[name].shape)}, the network's is {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    return wrong + [
        f"{name} is {t.dtype}, not floating point" for name, t in weights.items() if not t.is_floating_point()
    ]
