"""Every setting of a run as one typed, frozen value. It is saved whole in the run folder and rebuilds the run alone.

A recipe is a TOML file of these keys (see `toml`); what it leaves out comes from the recipe it names, or takes the
defaults of `sections`. Lengths of training are written with their unit, "200 epochs", "800000 steps" or
"10000000 images", and turned into steps in one place, `steps_in`.
"""

import math
from dataclasses import field

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from unstir.chain import DEFAULTS, SAMPLERS
from unstir.errors import MisfitError, UserError, refusing
from unstir.nn.config import ModelConfig
from unstir.runs.bounds import SPAN, STRICT
from unstir.runs.kind import Kind
from unstir.runs.sections import (
    CheckpointConfig,
    DataConfig,
    DiffusionConfig,
    GridConfig,
    LogConfig,
    LossConfig,
    TrainConfig,
)


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """A whole run. The module `toml` reads and writes it."""

    recipe: str = ""
    """The recipe this began from; in a TOML file, the one that fills what the file leaves out."""
    imported: str = ""
    """Where the weights came from, of an imported run, which has no training; `unstir import` writes it."""
    seed: int = 0
    """Seed of everything random in training, any whole number."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    grids: GridConfig = field(default_factory=GridConfig)

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        self._check_network()
        self._check_loss()
        if self.kind.has_teacher and self.log.held_out_images:
            other = 'measures the denoising loss, which loss.objective="consistency" does not minimise: use'
            raise MisfitError(f"log.held_out_images={self.log.held_out_images} {other}", {"log.held_out_images": 0})
        if self.train.label_dropout and not self.model.num_classes:
            hides = f"train.label_dropout={self.train.label_dropout} hides labels: use"
            raise MisfitError(hides, _CLASSES, {"train.label_dropout": 0.0})
        return self

    def _check_network(self) -> None:
        model, diffusion = self.model, self.diffusion
        if model.in_channels != self.data.channels:
            differs = f"model.in_channels={model.in_channels} differs from data.channels={self.data.channels}: use"
            both = [{"data.channels": number, "model.in_channels": number} for number in (1, 3)]
            raise MisfitError(differs, *both)
        outputs = model.in_channels * (2 if diffusion.learned_variance else 1)
        if model.out_channels not in (0, outputs):
            raise MisfitError(
                f"model.out_channels={model.out_channels} must be 0 (as many as it takes) or {outputs}: use",
                {"model.out_channels": 0},
            )
        if model.time_table not in (0, diffusion.T):
            raise MisfitError(
                f"model.time_table={model.time_table} must be 0 or diffusion.T={diffusion.T}, a row per time: use",
                {"model.time_table": diffusion.T},
            )
        if model.augmented and not self.train.augment:
            given = "model.augmented follows from train.augment: use"
            raise MisfitError(given, {"train.augment": 0.12}, {"model.augmented": False})
        levels, none = self.train.activation_checkpointing, {"train.activation_checkpointing": 0}
        if levels and not model.is_unet:
            raise MisfitError(f"train.activation_checkpointing is of the U-Net, not of {model.type}: use", none)
        if levels > (there := len(model.mults)):
            makes = f"train.activation_checkpointing={levels}, but model.mults={list(model.mults)} makes {there} levels"
            raise MisfitError(f"{makes}: use at most", {"train.activation_checkpointing": there})

    def _check_loss(self) -> None:
        diffusion, loss = self.diffusion, self.loss
        if diffusion.learned_variance and not loss.has_bound:
            trained = f'loss.objective="{loss.objective}" does not train diffusion.learned_variance: use'
            bound = {"objective": "hybrid", **loss.without_bound}
            recipe = ["the recipe digits-hybrid"] if self.data.source == "digits" else []
            raise MisfitError(trained, {f"loss.{name}": value for name, value in bound.items()}, *recipe)
        if loss.objective == "hybrid" and not diffusion.learned_variance:
            learned = 'loss.objective="hybrid" is for diffusion.learned_variance: use'
            raise MisfitError(learned, {"diffusion.learned_variance": True}, {"loss.objective": "simple"})
        if diffusion.zero_terminal_snr and loss.weighting in ("min_snr", "p2"):
            zero = f'loss.weighting="{loss.weighting}" is 0 at t = T with zero_terminal_snr, where every sampler starts'
            raise MisfitError(f"{zero}: use", {"loss.weighting": "simple"}, {"loss.weighting": "truncated_snr"})
        if self.kind.has_teacher and diffusion.predict == "eps":
            at_T = "at t = T an error in the noise is multiplied by sigma_T / alpha_T in the image"
            works = f'predict="eps" does not work with loss.objective="consistency", for {at_T}: use'
            raise MisfitError(works, {"diffusion.predict": "v"})

    @property
    def kind(self) -> Kind:
        """What the weights answer, and where they came from."""
        return Kind(self.loss.objective == "consistency", self.imported)

    @model_validator(mode="after")
    def _grids_are_possible(self) -> "Config":
        grids, diffusion, loss = self.grids, self.diffusion, self.loss
        if diffusion.zero_terminal_snr and SAMPLERS[grids.sampler].divides_by_alpha:
            zero = f'grids.sampler="{grids.sampler}" divides by alpha_T, which is 0 with zero_terminal_snr: use'
            raise MisfitError(zero, {"grids.sampler": "ddim"}, {"grids.sampler": "dpmpp_2m"})
        if not self.kind.takes(grids.sampler):
            pair = f'grids.sampler="{grids.sampler}" with loss.objective="{loss.objective}"'
            other = "consistency" if self.kind.has_teacher else DEFAULTS["sampler"]
            raise MisfitError(f'{pair}: either both are "consistency" or neither: use', {"grids.sampler": other})
        if grids.variance == "learned" and not diffusion.learned_variance:
            raise MisfitError(
                'grids.variance="learned" needs diffusion.learned_variance: use', {"grids.variance": "auto"}
            )
        if grids.guidance != 1 and not self.train.label_dropout:
            hidden = {"train.label_dropout": 0.1} | ({} if self.model.num_classes else _CLASSES)
            needs = f"grids.guidance={grids.guidance} needs train.label_dropout, and so classes: use"
            raise MisfitError(needs, hidden, {"grids.guidance": 1.0})
        if grids.steps > diffusion.T:
            raise MisfitError(
                f"grids.steps={grids.steps} exceeds diffusion.T={diffusion.T}: use at most",
                {"grids.steps": diffusion.T},
            )
        try:
            grids.check(diffusion.T)
        except UserError as error:
            raise ValueError(f"grids.{error}") from None
        return self


_CLASSES = {"model.num_classes": 10}  # as many as digits and CIFAR-10 have
MAY_CHANGE = (
    "train.length", "train.lr_period", "train.micro_batch", "train.activation_checkpointing", "train.compile",
    "train.device", "log.to", "log.every", "log.held_out_images", "log.held_out_times",
    "checkpoint.every", "checkpoint.keep", "data.store",
    "grids.epochs", "grids.log_spaced", "grids.num",
    *(f"grids.{name}" for name in DEFAULTS if name != "seed"),
)  # fmt: skip
"""The keys that may differ when a run is continued. The data may move, but its content is checked by its hash."""


def steps_in(span: str, steps_per_epoch: int, batch_size: int) -> int:
    """How many optimiser steps a span such as "20 epochs" is; images are rounded up to whole steps."""
    match = SPAN.fullmatch(span)
    if match is None:
        raise ValueError(f"not a span: {span!r}")
    number = int(match[1])
    return {"step": number, "epoch": number * steps_per_epoch, "image": math.ceil(number / batch_size)}[match[2]]


def log_spaced(length: int, num: int) -> set[int]:
    """``num`` steps, each a constant factor after the last, from a thousandth of ``length`` to it; fewer where they
    round to the same.
    """
    return {length, *(max(1, round(length * 1000 ** (k / num - 1))) for k in range(1, num + 1))}
