"""From a checkpoint to a model, or to the weights that a new run begins with (train.init)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.progress import Say, unsaid
from unstir.runs import build, checkpoint, toml
from unstir.runs.agreement import check_same
from unstir.runs.checkpoint import Checkpoint, content_hash
from unstir.runs.config import Config
from unstir.runs.model import Model
from unstir.theory.process import Process

if TYPE_CHECKING:
    from unstir.runs.run import Run


MAY_BE_NEW = ("label.weight",)
"""What a conditional run has and an unconditional one has not."""


def model_of(
    run: "Run",
    found: Checkpoint,
    *,
    ema: bool = True,
    device: str = "auto",
    dtype: str = "float32",
    guide: Model | None = None,
    say: Say = unsaid,
) -> Model:
    """The model of a checkpoint of a run, compared with it by `check_same`; arguments and errors as `Run.model`."""
    check_same(run, found, say)
    on, weights, step = build.device(device), weights_of(found, ema), found.step

    def load(arithmetic: torch.dtype) -> Denoiser:
        net = build.network(run.config, on)
        if wrong := misfits(net.state_dict(), weights):
            text = f"{run.path}: step {step} does not fit the network: {'; '.join(wrong[:3])}"
            raise UserError(f"{text}; use the same [model] settings")
        net.load_state_dict(weights)
        net.eval().requires_grad_(False)
        return build.denoiser(run.config, net.to(arithmetic), torch.float32)

    how: dict[str, Any] = {"device": on, "dtype": dtype, "ema": ema, "guide": guide}
    averaged = ema and run.config.train.ema_decay > 0
    return Model(load=load, step=step, weights_sha256=content_hash(weights), averaged=averaged, **how, **_of(run))


def model_in_training(run: "Run", denoiser: Denoiser, step: int) -> Model:
    """The model that a run is training, with the denoiser as it is after ``step``; its weights have no hash."""
    device, averaged = next(denoiser.net.parameters()).device, run.config.train.ema_decay > 0
    return Model(load=lambda _: denoiser, step=step, weights_sha256="", averaged=averaged, device=device, **_of(run))


def _of(run: "Run") -> dict[str, Any]:
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
    }


def weights_of(found: Checkpoint, ema: bool) -> dict[str, Tensor]:
    """The weights to sample from in a checkpoint: averaged if asked and there; UserError for raw ones that are not."""
    if found.kind == "slim":
        if found.ema and not ema:
            raise UserError(
                f"step {found.step} was kept as averages alone; leave out --no-ema or choose a step of checkpoints/"
            )
        return found.part("model")
    return (found.part("ema") if ema else {}) or found.part("model")


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


def initial_weights(net: nn.Module, config: Config) -> tuple[dict[str, Tensor], str]:
    """The sampling weights that train.init names, completed by the network's own of `MAY_BE_NEW`; a sentence on these.

    It names a file, a run, or RUN@STEP. Raises UserError for anything else, and for weights that do not fit.
    """
    found, own, source = _checkpoint_of(config.train.init), net.state_dict(), config.train.init
    weights = weights_of(found, ema=True)
    new = [name for name in MAY_BE_NEW if name in own and name not in weights]
    weights |= {name: own[name] for name in new}
    if wrong := misfits(own, weights):
        what = f"{'; '.join(_unlike(found.config, config) or wrong[:3])} ({len(wrong)} tensors, {wrong[0]})"
        remedy = "use the same [model] settings, or leave it out"
        raise UserError(f"train.init={source} does not fit the network: {what}; {remedy}")
    begins = f"begins with the weights of {source}, step {found.step}; it has no {', '.join(new)}, which is new and"
    return weights, f"{begins} keeps its own initial values" if new else ""


def check_initial(config: Config) -> None:
    """Raise UserError where train.init is no saved weights, or does not fit the network of the config."""
    if config.train.init:
        initial_weights(build.network(config, torch.device("cpu")), config)


def _checkpoint_of(text: str) -> Checkpoint:
    from unstir.runs.run import Run, run_and_step  # which imports this module

    if Path(text).is_file():
        return checkpoint.load(Path(text))
    folder, step = run_and_step(text)
    if not Path(folder).is_dir():
        raise UserError(f"train.init={text} does not exist; name a run, RUN@STEP, or a weights file of unstir")
    return Run.open(folder).load(step)


def _unlike(saved: dict[str, Any], config: Config) -> list[str]:
    """The settings of the network's shape that differ, in words."""
    there = toml.from_dict(saved, "train.init")
    theirs, ours = toml.flat(there), toml.flat(config)
    free = "model.dropout", "model.num_classes"
    keys = [key for key in ours if key.startswith("model.") and key not in free]
    pairs = [(key, theirs.get(key), ours[key]) for key in (*keys, "diffusion.learned_variance")]
    labels = "the number of labels (model.num_classes, and one hidden with train.label_dropout)"
    pairs.append((labels, build.num_labels(there), build.num_labels(config)))
    return [f"{key} is {their} there, {our} here" for key, their, our in pairs if their != our]
