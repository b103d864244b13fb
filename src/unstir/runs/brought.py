"""Weights that were trained elsewhere, by another program or in a loop of one's own, as the settings of a run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unstir import parts
from unstir.chain import DEFAULTS, Chain
from unstir.errors import UserError
from unstir.nn.config import ModelConfig
from unstir.nn.unet import UNet
from unstir.pixels import PIXELS, Scale
from unstir.progress import sized, written
from unstir.runs import build
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import misfits
from unstir.runs.config import Config
from unstir.runs.sections import DataConfig, DiffusionConfig, GridConfig, LossConfig, TrainConfig
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule, as_text, cosine, linear, sigmoid

if TYPE_CHECKING:
    from unstir.data.store import Store
    from unstir.runs.conditions import Conditions

HIDDEN = 0.1  # the share of labels hidden in training, of a network that knows a label which says nothing


def settings(
    network: ModelConfig,
    diffusion: DiffusionConfig,
    chain: Chain,
    size: tuple[int, int],
    *,
    origin: str,
    has_null: bool = False,
    conditions: "Conditions | None" = None,
    store: str = "",
) -> Config:
    """The config of a run of weights with this ``origin``; what nobody knows has its default. ``size`` is (H, W)."""
    hides = has_null if conditions is None else conditions.hides
    if any(side != 1 and side % network.multiple for side in size):
        raise UserError("size", sized(size), f"must be multiples of {network.multiple} for {len(network.mults)} levels")
    described: dict[str, Any] = {}
    if conditions is not None:
        described = {"condition": conditions.name, "condition_options": dict(conditions.options)}
    return Config(
        imported=origin,
        data=DataConfig(source="", store=store, channels=network.in_channels, size=written(size), **described),
        model=network,
        diffusion=diffusion,
        loss=LossConfig(objective="hybrid" if diffusion.learned_variance else "simple"),
        train=TrainConfig(length="1 epoch", warmup="0 steps", condition_dropout=HIDDEN * hides, dtype="float32"),
        grids=GridConfig(**{key: getattr(chain, key) for key in DEFAULTS}),
    )


def of_process(process: Process, predict: str, learned_variance: bool) -> DiffusionConfig:
    """A process as settings, its schedule by name or table; UserError for no ``predict``, or for eps at alpha_T = 0."""
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


def of_network(
    network: nn.Module, channels: int, num_classes: int, conditions: "Conditions | None", options: dict[str, Any]
) -> ModelConfig:
    """The settings of a U-Net, or of a decorated network of one's own with its ``options``; UserError for another."""
    told: dict[str, Any] = {"num_classes": num_classes, "condition_values": 0, "condition_channels": 0}
    if conditions is not None:
        told["condition_channels" if conditions.is_image else "condition_values"] = conditions.card.shape[0]
    if isinstance(network, UNet):
        return ModelConfig(**vars(replace(network.config, out_channels=0, **told)))
    name = parts.name_of("network", type(network))
    return ModelConfig(type=name, options=options, in_channels=channels, **told)


def data_card(store: "Store | None", shape: tuple[int, int, int], classes: tuple[str, ...], scale: Scale) -> DataCard:
    """What the data was like; UserError where classes or scale are given and not those of its ``store``."""
    if store is None:
        return DataCard(shape, classes, scale=scale)
    if classes and classes != store.classes:
        raise UserError("classes", classes, f"are not those of {store.path}", {"classes": store.classes})
    if scale not in (PIXELS, store.scale):
        raise UserError("scale", scale.pairs, f"is not that of {store.path}", {"scale": None})
    return DataCard.of_store(store)


def check_fit(config: Config, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError where weights are not those of the network of a config, by name and shape."""
    ours = build.outline(config).state_dict()  # shapes alone: a stranger's may need any amount of memory
    if wrong := misfits(ours, weights):
        raise UserError("", config.imported, f"has weights that do not fit the network: {wrong[0]}")
