"""Every setting of a run as one typed, frozen value. It is saved whole in the run folder and rebuilds the run alone.

A recipe is a TOML file of these keys (see `toml`); what it leaves out comes from the recipe it names, or takes the
defaults of `sections`. Lengths carry their unit, "200 epochs", "800000 steps" or "10000000 images" (`steps_in`).
"""

import dataclasses
import math
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from unstir.chain import DEFAULTS, FAST, SAMPLERS, Chain, Sampler
from unstir.errors import Remedy, UserError, refusing
from unstir.nn.config import ModelConfig
from unstir.parts import is_own
from unstir.runs.sections import (
    SPAN,
    STRICT,
    CheckpointConfig,
    DataConfig,
    DiffusionConfig,
    GridConfig,
    LogConfig,
    LossConfig,
    TrainConfig,
)

OTHER = "name the run that it was distilled from"


@dataclasses.dataclass(frozen=True)
class Kind:
    """The kind of a run: what its weights answer and where they came from.

    Weights that were trained to denoise estimate means, of which every sampler makes images. Weights that `unstir
    distill` made learned to go along a teacher's paths in so many ``calls`` of `ddim`, and in no others. Weights that
    `unstir import` or `unstir pull` brought have an ``origin``, and their training is not known.
    """

    calls: int = 0
    origin: str = ""

    @property
    def has_teacher(self) -> bool:
        """Whether the weights were distilled."""
        return self.calls > 0

    @property
    def trained_here(self) -> bool:
        """Whether the data, the log and the length of the training are known."""
        return not self.origin

    def usual(self, chain: Chain, T: int) -> Chain:
        """How many images are drawn by default: as the run's own ``chain`` of at most T steps, by a fast sampler."""
        if self.has_teacher:
            return chain
        return chain.changed(sampler=FAST.sampler, steps=min(FAST.steps, T), spacing=FAST.spacing)

    def shorter(self, chain: Chain, steps: int) -> Chain:
        """A ``chain`` in at most so many steps, to time or warm up; of distilled weights as it is."""
        return chain if self.has_teacher else chain.changed(steps=min(steps, chain.steps))

    @property
    def chain(self) -> dict[str, Any]:
        """The settings of a chain that distilled weights take with no other values; none of other weights."""
        fixed = {"sampler": "ddim", "times": (), "steps": self.calls, "spacing": "trailing", "eta": 0.0}
        return fixed if self.has_teacher else {}

    def check(self, folder: object, chain: Chain, guide: str | None = None) -> None:
        """Raise UserError where the weights in ``folder`` cannot be sampled so, or led away from a ``guide``."""
        for name, value in self.chain.items():
            if (given := getattr(chain, name)) != value:
                fixed = f"is not what {folder} was distilled for"
                raise UserError(name, given, fixed, ({name: value or None}, OTHER))
        if self.has_teacher and chain.guidance not in (0, 1):
            no_means = f"does not work with {folder}, whose estimates are no means: it was distilled"
            raise UserError("guidance", chain.guidance, no_means, ({"guidance": 1}, {"guidance": 0}))
        if guide is not None:
            self.check_means(folder, ", and cannot be guided", f"leave guide={guide} out")

    def check_means(self, given: object, why: str, remedy: str = OTHER, key: str = "") -> None:
        """Raise UserError, with ``why`` and the ``remedy``, where the weights that are ``given`` estimate no means."""
        if self.has_teacher:
            raise UserError(key, given, f"was distilled{why}", remedy)

    def check_trained_here(self, folder: Path, why: str, remedy: Remedy) -> None:
        """Raise UserError where the training in ``folder`` is not known, with ``why`` that does not do."""
        if not self.trained_here:
            raise UserError("", folder, f"was imported{why}", remedy)


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
        if not self.model.is_unet:  # which takes the images as they are
            object.__setattr__(self, "model", dataclasses.replace(self.model, in_channels=self.data.channels))
        self._check_network()
        self._check_loss()
        if self.kind.has_teacher and self.log.held_out_images:
            other = "measures the denoising loss, which that of paths does not minimise"
            raise UserError("log.held_out_images", self.log.held_out_images, other, {"log.held_out_images": 0})
        self._check_condition()
        return self

    def _check_condition(self) -> None:
        model, data, dropout = self.model, self.data, "train.condition_dropout"
        if (share := self.train.condition_dropout) and not (model.num_classes or data.condition):
            raise UserError(dropout, share, "hides conditions, and there are none", (_CLASSES, self.unhidden))
        if data.condition and model.num_classes:
            others = {"model.num_classes": 0}, {"data.condition": ""}
            raise UserError("data.condition", data.condition, "and classes were given", others)
        for key in ("condition_values", "condition_channels"):
            if getattr(model, key) and not data.condition:
                needs = {"data.condition": "stored"}, {f"model.{key}": 0}
                raise UserError(f"model.{key}", getattr(model, key), "needs data.condition", needs)
        if data.conditions and data.condition != "stored":
            raise UserError("data.conditions", data.conditions, "is of data.condition", {"data.condition": "stored"})
        if data.condition_options and not data.condition:
            raise UserError("data.condition_options", data.condition_options, "are of data.condition, which is empty")

    @property
    def modules(self) -> str:
        """The modules of the user's parts that draw its images, separated by commas."""
        names = self.model.type, self.diffusion.schedule, self.grids.sampler, self.data.condition
        return ",".join(dict.fromkeys(name.partition(":")[0] for name in names if is_own(name)))

    def _check_network(self) -> None:
        model, diffusion = self.model, self.diffusion
        if model.in_channels != self.data.channels:
            numbers = dict.fromkeys((model.in_channels, self.data.channels))
            both = tuple({"data.channels": number, "model.in_channels": number} for number in numbers)
            raise UserError("model.in_channels", model.in_channels, f"is not data.channels={self.data.channels}", both)
        outputs = model.in_channels * (2 if diffusion.learned_variance else 1)
        if model.out_channels not in (0, outputs):
            due = f"must be 0 or {outputs}"
            raise UserError("model.out_channels", model.out_channels, due, {"model.out_channels": 0})
        if model.time_table not in (0, diffusion.T):
            due = f"must be 0 or diffusion.T={diffusion.T}"
            raise UserError("model.time_table", model.time_table, due, {"model.time_table": diffusion.T})
        if model.augmented and not self.train.augment:
            remedies = {"train.augment": 0.12}, {"model.augmented": False}
            raise UserError("model.augmented", True, "follows from train.augment", remedies)
        levels, key = self.train.activation_checkpointing, "train.activation_checkpointing"
        if levels and not model.is_unet:
            raise UserError(key, levels, f"is of the U-Net, not of {model.type}", {key: 0})
        if levels > (num_levels := len(model.mults)):
            raise UserError(key, levels, f"is more than the {num_levels} levels of the network", {key: num_levels})

    def _check_loss(self) -> None:
        diffusion, loss = self.diffusion, self.loss
        if diffusion.learned_variance and not loss.has_bound:
            untrained = "does not train diffusion.learned_variance"
            bound = {f"loss.{name}": value for name, value in {"objective": "hybrid", **loss.without_bound}.items()}
            fixed = {"diffusion.learned_variance": False}
            raise UserError("loss.objective", loss.objective, untrained, (bound, fixed))
        if loss.objective == "hybrid" and not diffusion.learned_variance:
            both = {"diffusion.learned_variance": True}, {"loss.objective": "simple"}
            raise UserError("loss.objective", loss.objective, "is for diffusion.learned_variance", both)
        if self.kind.has_teacher and diffusion.predict == "eps":
            at_T = "is multiplied by sigma_T / alpha_T at t = T, where the first call learns an image"
            raise UserError("diffusion.predict", "eps", at_T, {"diffusion.predict": "v"})

    @property
    def unhidden(self) -> dict[str, float]:
        """What is changed for a network that no class or condition is hidden from, so that nothing guides it."""
        return {"train.condition_dropout": 0.0} | ({"grids.guidance": 1.0} if self.grids.guidance != 1 else {})

    @property
    def kind(self) -> Kind:
        """What the weights answer, and where they came from."""
        return Kind(self.loss.calls if self.loss.objective == "paths" else 0, self.imported)

    @model_validator(mode="after")
    def _grids_are_possible(self) -> "Config":
        grids, diffusion = self.grids, self.diffusion
        if diffusion.zero_terminal_snr and SAMPLERS.get(grids.sampler, Sampler()).divides_by_alpha:
            zero = "divides by alpha_T, which is 0 with zero_terminal_snr"
            others = {"grids.sampler": "ddim"}, {"grids.sampler": "dpmpp_2m"}
            raise UserError("grids.sampler", grids.sampler, zero, others)
        if grids.variance == "learned" and not diffusion.learned_variance:
            raise UserError("grids.variance", "learned", "needs diffusion.learned_variance", {"grids.variance": "auto"})
        if grids.variance == "optimal" and not self.log.held_out_images:
            measured = {"log.held_out_images": 128}, {"grids.variance": "auto"}
            raise UserError("grids.variance", grids.variance, "needs log.held_out_images", measured)
        if grids.guidance != 1 and not self.train.condition_dropout:
            hidden = {"train.condition_dropout": 0.1}
            hidden |= {} if self.model.num_classes or self.data.condition else _CLASSES
            needs = "needs train.condition_dropout, and so classes or data.condition"
            raise UserError("grids.guidance", grids.guidance, needs, (hidden, {"grids.guidance": 1.0}))
        if max(grids.channels, default=0) >= (count := self.data.channels):
            raise UserError("grids.channels", grids.channels, f"are not in 0..{count - 1}", {"grids.channels": None})
        try:
            self.kind.check("this run", grids)
            grids.check(diffusion.T)
        except UserError as error:
            raise error.within("grids") from None
        return self


_CLASSES = {"model.num_classes": 10}  # as many as digits and CIFAR-10 have
MAY_CHANGE = (
    "train.length", "train.lr_period", "train.micro_batch", "train.activation_checkpointing", "train.compile",
    "train.device", "log.to", "log.options", "log.every", "log.held_out_images", "log.held_out_times",
    "checkpoint.every", "checkpoint.keep", "data.store",
    "grids.epochs", "grids.log_spaced", "grids.num", "grids.channels",
    *(f"grids.{name}" for name in DEFAULTS if name != "seed"),
)  # fmt: skip
"""The keys that may differ when a run is continued; the content of data that moved is checked by its hash."""

PARTS = {
    "model.type": ("network", "options"), "diffusion.schedule": ("schedule", "options"),
    "loss.weighting": ("weighting", "weighting_options"), "loss.times": ("times", "times_options"),
    "loss.objective": ("loss", "objective_options"),
    "grids.sampler": ("sampler", "options"), "data.source": ("source", "options"),
    "data.condition": ("condition", "condition_options"), "log.to": ("tracker", "options"),
}  # fmt: skip
"""The keys that name a part, with its kind (`unstir.parts`) and the key of its options in the same section."""


def may_change(key: str) -> bool:
    """Whether a dotted key may differ when a run is continued."""
    return key in MAY_CHANGE or key.startswith(("grids.options.", "log.options."))


def steps_in(span: str, steps_per_epoch: int, batch_size: int) -> int:
    """How many optimiser steps a span such as "20 epochs" is; images are rounded up to whole steps."""
    match = SPAN.fullmatch(span)
    assert match is not None, span
    number = int(match[1])
    return {"step": number, "epoch": number * steps_per_epoch, "image": math.ceil(number / batch_size)}[match[2]]
