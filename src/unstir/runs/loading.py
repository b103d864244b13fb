"""From a checkpoint to a model: which of its weights are sampled from, and how they get into a network."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.runs import build, toml
from unstir.runs.agreement import check_same
from unstir.runs.checkpoint import Checkpoint, content_hash
from unstir.runs.model import Model
from unstir.theory.process import Process

if TYPE_CHECKING:
    from unstir.runs.run import Run


def model_of(
    run: "Run",
    found: Checkpoint,
    *,
    ema: bool = True,
    device: str = "auto",
    dtype: str = "float32",
    guide: Model | None = None,
) -> Model:
    """The model of a checkpoint of a run that is at hand; arguments and errors as `Run.model`."""
    check_same(run, found)
    on, weights, step = build.device(device), weights_of(found, ema), found.step

    def load(arithmetic: torch.dtype) -> Denoiser:
        net = build.network(run.config, on)
        load_into(net, weights, f"{run.path}: step {step}")
        net.eval().requires_grad_(False)
        return build.denoiser(run.config, net.to(arithmetic), torch.float32)

    return _model(run, load, step, on, content_hash(weights), dtype=dtype, ema=ema, guide=guide)


def model_in_training(run: "Run", denoiser: Denoiser, step: int) -> Model:
    """The model that a run is training, with the denoiser as it is after ``step``; its weights have no hash."""
    return _model(run, lambda _: denoiser, step, next(denoiser.net.parameters()).device, "")


def _model(
    run: "Run",
    load: Callable[[torch.dtype], Denoiser],
    step: int,
    device: torch.device,
    weights: str,
    dtype: str = "float32",
    ema: bool = True,
    guide: Model | None = None,
) -> Model:
    config, settings = run.config, toml.to_dict(run.config)
    return Model(
        load=load,
        process=Process(build.schedule(config.diffusion)),
        predict=config.diffusion.predict,
        learned_variance=config.diffusion.learned_variance,
        data=run.data,
        labels=run.labels,
        chain=run.chain(),
        folder=run.path,
        step=step,
        weights=weights,
        settings={"model": settings["model"], "diffusion": settings["diffusion"]},
        device=device,
        dtype=dtype,
        ema=ema,
        averaged=ema and config.train.ema_decay > 0,
        guide=guide,
        nrow=config.grids.nrow,
    )


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


def load_into(net: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a network of the same structure; UserError naming the first tensors that do not fit."""
    if wrong := misfits(net.state_dict(), weights):
        raise UserError(f"{source} does not fit the network: {'; '.join(wrong[:3])}; use the same [model] settings")
    net.load_state_dict(dict(weights))
