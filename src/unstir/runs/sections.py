"""The sections of a run's config: data, diffusion, loss, training, logging, checkpoints and grids, and their bounds.

The sentence below each setting is its help on the command line.
"""

import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from unstir.chain import Chain
from unstir.errors import UserError, refusing
from unstir.parts import (
    ConditionName,
    LossName,
    Option,
    ScheduleName,
    TimesName,
    TrackerName,
    WeightingName,
    is_own,
    names_of,
)
from unstir.progress import counted, sides, written

STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
SPAN = re.compile(r"0*(\d{1,12})\s*(step|epoch|image)s?")
MOST = 1_000_000  # the greatest of most counts: beyond what any machine holds, and far below what overflows
MOST_FLOAT = 1e12  # the greatest of most numbers: products of a few such still are finite in single precision


def _normal_span(text: str) -> str:
    match = SPAN.fullmatch(text.strip())
    if match is None and re.fullmatch(r"\d{1,12}", number := text.strip()):
        raise ValueError(f'must have a unit: "{number} steps", "{number} epochs" or "{number} images"')
    if match is None:
        raise ValueError('must be a whole number and a unit, such as "5000 steps", "20 epochs" or "1000000 images"')
    count = int(match[1])
    return counted(count, match[2] if count else "step")


def _positive_span(text: str) -> str:
    if text == "0 steps":
        raise ValueError('must be more than nothing, such as "1 epoch"')
    return text


def _size(size: int | str) -> int | str:
    pair = sides(size)
    return written(pair) if pair else 0


def _ends(scale: tuple[float, ...]) -> tuple[float, ...]:
    if len(scale) % 2:
        raise ValueError("must be pairs of a low and a high value")
    return scale


def _shown(channels: tuple[int, ...]) -> tuple[int, ...]:
    if len(channels) not in (0, 1, 3):
        raise ValueError("must be one channel (grey) or three (red, green, blue)")
    return channels


Span = Annotated[str, AfterValidator(_normal_span)]
PositiveSpan = Annotated[Span, AfterValidator(_positive_span)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=MOST_FLOAT, allow_inf_nan=False)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Calls = Annotated[int, Field(ge=1, le=32)]
Channels = Annotated[int, Field(ge=1, le=64)]
Size = Annotated[int | str, AfterValidator(_size)]
Scale = Annotated[tuple[float, ...], AfterValidator(_ends)]
Ints = tuple[Annotated[int, Field(ge=0, le=MOST)], ...]


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Which images."""

    source: str = "mnist"
    """mnist, digits, cifar10 (downloaded), a folder, zip or store, a form of docs/data.md, or MODULE:NAME."""
    options: dict[str, Option] = field(default_factory=dict, hash=False)
    """Arguments of a source MODULE:NAME, each by its name."""
    store: str = ""
    """Folder of the packed store; empty: data/NAME below the current folder."""
    size: Size = 0
    """Side in pixels, or height and width as 24x40, to resize and crop images to; 0: keep their one common size."""
    channels: Channels = 3
    """1 grey, 3 RGB; for arrays and pages their own number of channels."""
    depth: Literal["auto", "8", "float"] = "auto"
    """8: pixels 0..255. float: values as they are, in float32, where NaN is missing. auto: float for arrays of floating
    point that are not 8-bit levels."""
    scale: Scale = ()
    """For float: the values that become -1 and 1, for all channels or each; by default the training images' range."""
    held_out: Fraction | None = None
    """Fraction kept out of training where the source has no split; by default 1/6 for digits, else 1/10."""
    sha256: str = ""
    """Expected SHA-256 of a source that is one file; for CIFAR-10 it replaces the official one."""
    conditions: str = ""
    """File of numbers that describe each image of a folder, zip or tar, for data.condition stored: a .csv with the
    column file_name, or a .npy [N, K] in the order of their paths (img2 before img10)."""
    flip: bool = False
    """Mirror each training image with probability 1/2, drawn anew at each step."""
    condition: ConditionName = ""
    """What describes each image to the network: stored (the store's own vectors or images), low_resolution, masked, or
    a function of yours as MODULE:NAME; empty: nothing, or its class."""
    condition_options: dict[str, Option] = field(default_factory=dict, hash=False)
    """Options of the condition, each by its name: factor of low_resolution, part of masked."""


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class DiffusionConfig:
    """The forward process and what the network predicts."""

    schedule: ScheduleName = "linear"
    """How the signal fades: linear, cosine, sigmoid, or MODULE:NAME (docs/extend.md); table: given in options."""
    options: dict[str, Option] = field(default_factory=dict, hash=False)
    """Arguments of the schedule, each by its name: beta_1 and beta_T of linear, which are not scaled with T."""
    T: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Steps of the forward process."""
    zero_terminal_snr: bool = False
    """Shift the schedule so that x_T holds no signal at all; needs predict v or x0."""
    predict: Literal["eps", "x0", "v"] = "eps"
    """What the network outputs: the noise, the image, or the velocity."""
    learned_variance: bool = False
    """Let the network also predict the variance of each reverse step; needs loss.objective hybrid or vlb."""

    @model_validator(mode="after")
    def _consistent(self) -> "DiffusionConfig":
        if self.zero_terminal_snr and self.predict == "eps":
            others = {"predict": "v"}, {"predict": "x0"}
            raise UserError("predict", "eps", "is undefined with zero_terminal_snr", others)
        return self


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """How the network learns."""

    length: PositiveSpan = "100 epochs"
    """How long to train, such as "20 epochs", "5000 steps" or "1000000 images"."""
    batch_size: Count = 128
    """Images per optimiser step, over all devices. The last partial batch of an epoch is dropped."""
    micro_batch: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Images that a device computes at once; 0: the whole batch, or as much of it as fits when the run begins."""
    activation_checkpointing: Annotated[int, Field(ge=0, le=13)] = 0
    """Number of levels, from full resolution down, that the backward pass recomputes: less memory, more time."""
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """Adam, AdamW with decoupled weight decay, or Muon for the matrices and convolutions with AdamW for the rest."""
    lr: Positive = 2e-4
    """Peak of the learning rate, after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=MOST_FLOAT)] = 0.0
    """Weight decay of AdamW and Muon."""
    beta1: Fraction = 0.9
    """Adam's decay of the mean gradient."""
    beta2: Fraction = 0.999
    """Adam's decay of the mean squared gradient."""
    adam_eps: Epsilon = 1e-8
    """Adam's epsilon."""
    warmup: Span = "5000 steps"
    """Length of the linear warm-up."""
    warmup_start: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Rate at which the warm-up begins, as a fraction of lr."""
    lr_schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """The rate after the warm-up: constant, half a cosine, or (wsd) constant with a linear fall at the end."""
    lr_period: Span = "0 steps"
    """Length of the cosine's fall (0: the rest of the run), or of the fall of wsd (0: a fifth of the run)."""
    lr_every: Literal["step", "epoch"] = "step"
    """Whether the learning rate changes at each step or at each epoch."""
    clip: Annotated[float, Field(ge=0, le=MOST_FLOAT)] = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    loss_scale: Positive = 1.0
    """Factor on the loss that is minimised; it matters to clip and adam_eps. The logged loss leaves it out."""
    ema_decay: Fraction = 0.9999
    """Decay of the exponential moving average of the weights; 0: no average, so raw weights are sampled."""
    ema_warmup: bool = True
    """Start the average fast: the decay of update n = 1, 2, ... is at most n / (9 + n)."""
    power_ema: bool = False
    """Also save two power-function averages at each snapshot; --ema-width then chooses an average after training."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic inside the network; auto: bfloat16 where the device has it. Weights stay float32."""
    compile: Literal["no", "yes", "graphs"] = "no"
    """Compile the network with torch.compile; graphs also records CUDA graphs on a GPU."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1" or "mps"."""
    condition_dropout: Fraction = 0.0
    """Share of images whose class or condition is hidden, for guidance; 0.1 is usual, and data.condition's default."""
    augment: Fraction = 0.0
    """Probability of scaling, rotating or moving a training image; samples are not augmented. 0.12 is usual."""
    init: str = ""
    """Source of the initial weights: a run (its newest weights), RUN@STEP, or a file of weights; empty: random."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.micro_batch > (size := self.batch_size):
            raise UserError("micro_batch", self.micro_batch, f"exceeds batch_size={size}", {"micro_batch": size})
        if self.weight_decay and self.optimizer == "adam":
            remedies = {"optimizer": "adamw"}, {"weight_decay": 0.0}
            raise UserError("weight_decay", self.weight_decay, 'has no effect with optimizer="adam"', remedies)
        return self


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossConfig:
    """What is minimised."""

    objective: LossName = "simple"
    """simple is the squared error, vlb the variational bound, hybrid both, to train a learned variance, MODULE:NAME a
    loss of yours. paths is the error of few calls along a teacher's paths; unstir distill sets it."""
    objective_options: dict[str, Option] = field(default_factory=dict, hash=False)
    """Arguments of a loss MODULE:NAME, each by its name."""
    weighting: WeightingName = "simple"
    """Weight of the squared error at each time: equal (simple), by SNR (min_snr, truncated_snr, p2), or MODULE:NAME."""
    weighting_options: dict[str, Option] = field(default_factory=dict, hash=False)
    """Arguments of the weighting, each by its name: gamma of min_snr, gamma and k of p2."""
    vlb_weight: Positive = 0.001
    """Factor of the bound, in bits per dimension, in the hybrid."""
    teacher: Literal["eps", "x0", "v"] = "v"
    """What the teacher of paths predicts: the noise, the image, or the velocity."""
    calls: Calls = 4
    """Number of calls in which paths are learned, and images drawn."""
    times: TimesName = "uniform"
    """How times are drawn: uniform, by loss (importance, for vlb), by log-SNR (laplace, normal), or MODULE:NAME."""
    times_options: dict[str, Option] = field(default_factory=dict, hash=False)
    """Arguments of the distribution, each by its name: mean and scale of laplace and normal, log-SNRs in nats."""
    input_perturbation: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Extra noise in x_t that the target leaves out, as a fraction of x_t's own noise (Ning et al. 2023: 0.1)."""
    noise_choices: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of noises drawn for an image; the nearest is used (immiscible diffusion). 1: ordinary training."""

    @property
    def has_bound(self) -> bool:
        """Whether the variational bound is a part of what is minimised."""
        return self.objective in ("hybrid", "vlb")

    @property
    def without_bound(self) -> dict[str, Any]:
        """The settings by which the variational bound would not be one, with values by which it is."""
        default = {key: getattr(LossConfig, key) for key in _NO_BOUND}
        return {key: value for key, value in default.items() if getattr(self, key) not in (value, "importance")}

    @model_validator(mode="after")
    def _consistent(self) -> "LossConfig":
        if self.objective_options and not is_own(self.objective):
            of_own = f'are of a loss MODULE:NAME, not of objective="{self.objective}"'
            raise UserError("objective_options", self.objective_options, of_own, {"objective_options": None})
        if self.objective not in ("simple", "hybrid") and self.weighting != "simple":
            weighs = f'weighs the squared error, which objective="{self.objective}" does not use'
            remedies = {"weighting": "simple", **self.without_bound}, {"objective": "simple"}
            raise UserError("weighting", self.weighting, weighs, remedies)
        for key, (name, needs) in _ONLY_WITH.items():
            if getattr(self, name) not in needs and getattr(self, key) != getattr(LossConfig, key):
                without, either = f'has no effect without {name}="{needs[0]}"', {name: needs[0]}
                raise UserError(key, getattr(self, key), without, (either, {key: getattr(LossConfig, key)}))
        for key in _NO_BOUND:
            value = getattr(self, key)
            has_effect = key != "input_perturbation" if is_own(self.objective) else self.objective != "paths"
            if not has_effect and value != getattr(LossConfig, key):
                plain = {key: getattr(LossConfig, key), **self.without_bound}
                raise UserError(key, value, f'has no effect with objective="{self.objective}"', plain)
            if self.has_bound and key in (plain := self.without_bound):
                weighed = (plain | {"times": "importance"},) * (key == "times")
                recipe = ("begin with the recipe digits-hybrid",) * (self.objective == "hybrid")
                no_bound = f'is not of the bound that objective="{self.objective}" minimises'
                raise UserError(key, value, no_bound, (plain, *weighed, *recipe))
        return self


_ONLY_WITH = {
    "vlb_weight": ("objective", ("hybrid",)),
    "teacher": ("objective", ("paths",)),
    "calls": ("objective", ("paths",)),
}
"""Settings of a loss that have an effect with some values of another setting alone: that one, and these values."""
_NO_BOUND = ("times", "input_perturbation", "noise_choices")
"""Settings that draw another x_t, or other times, than those of the bound, which paths have no use for either."""


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class LogConfig:
    """What is logged: metrics.jsonl, and held_out.jsonl at each snapshot."""

    every: PositiveSpan = "50 steps"
    """Interval between lines of metrics, which are means over the steps since the last line."""
    to: tuple[TrackerName, ...] = ()
    """Trackers that also show the run: tensorboard, wandb (Weights & Biases, on its server), or MODULE:NAME."""
    options: dict[str, dict[str, Option]] = field(default_factory=dict, hash=False)
    """Arguments of these trackers, by the name of each and their own: --log.options.Diary.days 7. MODULE:NAME is a name
    too."""
    held_out_images: Annotated[int, Field(ge=0, le=MOST)] = 128
    """Number of training images, and of held-out ones, whose loss is measured at each snapshot; 0: none."""
    held_out_times: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Number of times at which it is measured, the middles of equal parts of 1..T; at most T."""

    @model_validator(mode="after")
    def _consistent(self) -> "LogConfig":
        if self.held_out_images == 1:
            remedies = {"held_out_images": 2}, {"held_out_images": 0}
            raise UserError("held_out_images", 1, "gives a mean without its error", remedies)
        if others := self.options.keys() - names_of(self.to):
            raise UserError("options", min(others), "is of no tracker in log.to", "name it there, or leave these out")
        return self


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointConfig:
    """What is kept to continue from."""

    every: PositiveSpan = "1 epoch"
    """Interval between checkpoints, which hold everything needed to continue."""
    keep: Count = 2
    """Number of checkpoints to keep, the newest."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class _Snapshots:
    epochs: Ints = ()
    """Epochs after which grids are drawn, counted from 0; empty: log-spaced. The last step always has one."""
    log_spaced: Annotated[int, Field(ge=0, le=100)] = 6
    """Number of log-spaced snapshots where epochs is empty."""
    num: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Images in a grid."""
    nrow: Count = 8
    """Images per row."""
    channels: Annotated[Ints, AfterValidator(_shown)] = ()
    """Channels that pictures show, from 0: one, or three as red, green, blue; by default all of three, or the first."""


@refusing
@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridConfig(Chain, _Snapshots):
    """The grids drawn at snapshots, always from the same noise, and the slim weight files kept with them."""
