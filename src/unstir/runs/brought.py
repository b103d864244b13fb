"""Weights that were trained elsewhere, by another program or in a loop of one's own, as the settings of a run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unstir import parts
from unstir.chain import DEFAULTS, Chain
from unstir.data.manifest import SPLITS
from unstir.data.sides import written
from unstir.data.store import Store
from unstir.errors import UserError
from unstir.nn.config import ModelConfig
from unstir.nn.unet import UNet
from unstir.runs import build
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import content_hash, misfits
from unstir.runs.config import Config
from unstir.runs.sections import DataConfig, DiffusionConfig, GridConfig, LossConfig, TrainConfig
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule, as_text, cosine, linear, sigmoid

HIDDEN = 0.1  # the share of labels hidden in training, of a network that knows a label which says nothing


def settings(
    network: ModelConfig,
    diffusion: DiffusionConfig,
    chain: Chain,
    size: tuple[int, int],
    *,
    origin: str,
    has_null: bool = False,
    store: str = "",
) -> Config:
    """The config of a run of weights with this ``origin``; what nobody knows has its default. ``size`` is (H, W)."""
    (height, width), hidden = size, HIDDEN if has_null else 0.0
    if any(side != 1 and side % network.multiple for side in size):
        levels = f"{len(network.mults)} levels of the network"
        raise UserError("size", f"{height}x{width}", f"must be multiples of {network.multiple} for the {levels}")
    return Config(
        imported=origin,
        data=DataConfig(source="", store=store, channels=network.in_channels, size=written(size)),
        model=network,
        diffusion=diffusion,
        loss=LossConfig(objective="hybrid" if diffusion.learned_variance else "simple"),
        train=TrainConfig(length="1 epoch", warmup="0 steps", label_dropout=hidden, dtype="float32"),
        grids=GridConfig(**{key: getattr(chain, key) for key in DEFAULTS}),
    )


def of_process(process: Process, predict: str, learned_variance: bool) -> DiffusionConfig:
    """The settings of a process: a schedule of ours by its name, any other by its table.

    Raises UserError for another ``predict`` than eps, x0 and v, and for eps where alpha_T = 0.
    """
    schedule, T = process.schedule, process.T
    if predict not in PARAMETERIZATIONS:
        raise UserError("predict", predict, f"must be one of {', '.join(PARAMETERIZATIONS)}")
    PARAMETERIZATIONS[predict].check(schedule)
    ends: dict[str, Any] = {"beta_1": float(f"{schedule.beta(1):.12g}"), "beta_T": float(f"{schedule.beta(T):.12g}")}
    named: list[tuple[Callable[..., NoiseSchedule], dict[str, Any]]] = [(cosine, {}), (sigmoid, {})]
    if ends["beta_1"] <= ends["beta_T"] < 1:
        named.append((linear, ends))
    ours = [
        (make.__name__, given) for make, given in named if torch.equal(make(T, **given).log_abar, schedule.log_abar)
    ]
    name, options = (*ours, ("table", {"log_abar": as_text(schedule)}))[0]
    return DiffusionConfig(
        schedule=name,
        options=options,
        T=T,
        predict=predict,  # type: ignore[arg-type, unused-ignore]
        learned_variance=learned_variance,
    )


def usual_chain(process: Process) -> Chain:
    """How images are drawn where nobody says it."""
    return Chain(steps=min(DEFAULTS["steps"], process.T))


def of_network(network: nn.Module, channels: int, num_classes: int, options: dict[str, Any]) -> ModelConfig:
    """The settings of a U-Net, or of a network of one's own with the ``options`` that it was made with.

    Raises UserError where `unstir.network` does not decorate its class.
    """
    if isinstance(network, UNet):
        fields = vars(dataclasses.replace(network.config, out_channels=0, num_classes=num_classes))
        return ModelConfig(**fields)
    name = parts.name_of("network", type(network))
    return ModelConfig(type=name, options=options, in_channels=channels, num_classes=num_classes)


def described(
    network: nn.Module,
    process: Process,
    data: Store | tuple[int, int, int],
    predict: str,
    learned_variance: bool,
    classes: Sequence[str],
    has_null: bool,
    options: Mapping[str, Any],
    chain: Chain | None,
) -> tuple[Config, DataCard, dict[str, Tensor]]:
    """The settings, the data and the weights of a run of a network; arguments and errors as those of `Run.create`."""
    store, shape = (data, data.shape) if isinstance(data, Store) else (None, data)
    if store and classes and tuple(classes) != store.classes:
        raise UserError("classes", classes, f"are not those of {store.path}", {"classes": store.classes})
    weights = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    config = settings(
        of_network(network, shape[0], len(classes), dict(options)),
        of_process(process, predict, learned_variance),
        chain or usual_chain(process),
        shape[1:],
        origin=f"{type(network).__name__}, trained elsewhere, SHA-256 {content_hash(weights)}",
        has_null=has_null,
        store=str(store.path.resolve()) if store else "",
    )
    check_fit(config, weights)
    no_data = DataCard(shape, tuple(classes), dict.fromkeys(SPLITS, 0), content_hash="")
    return config, DataCard.of_store(store) if store else no_data, weights


def check_fit(config: Config, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError where weights are not those of the network of a config, by name and shape."""
    ours = build.outline(config).state_dict()  # shapes alone: a stranger's may need any amount of memory
    if wrong := misfits(ours, weights):
        raise UserError("", config.imported, f"has weights that do not fit the network: {wrong[0]}")
