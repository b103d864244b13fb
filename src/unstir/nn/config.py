"""What determines a network's shape. Free of torch, so that a command line can read and check it at once."""

import math
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from unstir.errors import UserError, refusing
from unstir.parts import NetworkName, Option

AUGMENTATION = ("mirrored", "upside down", "scale", "cos - 1", "sin", "right", "down")
"""The numbers that describe an augmentation to a network (`diffusion.augmentation`); all are 0 where there is none."""
_Count = Annotated[int, Field(ge=1, le=16_384)]
_Index = Annotated[int, Field(ge=0, le=1_000_000)]
Padding = Literal["zeros", "circular"]


@refusing
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UNetConfig:
    """What determines the shape of a `UNet`, by default Ho et al.'s for CIFAR-10. UserError for wrong settings."""

    in_channels: _Count = 3
    """Channels of the images: 3 for colour, 1 for grey."""
    channels: _Count = 128
    """Feature channels at full resolution; even, and a multiple of groups."""
    mults: Annotated[tuple[_Count, ...], Field(min_length=1, max_length=13)] = (1, 2, 2, 2)
    """Feature channels of each level as multiples of channels; each level after the first halves the resolution."""
    num_blocks: Annotated[int, Field(ge=1, le=64)] = 2
    """Residual blocks of each level on the way down; the way up has one more."""
    attention: tuple[_Index, ...] = (1,)
    """Levels with self-attention, counted from 0, the full resolution. The middle of the network always has it."""
    heads: _Count = 1
    """Heads of each self-attention; must divide the channels of its level."""
    head_channels: Annotated[int, Field(ge=0, le=16_384)] = 0
    """Channels of each head, so that wider levels have more heads; 0: heads sets their number."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Probability in [0, 1) that an element is dropped inside each residual block in training."""
    groups: _Count = 32
    """Groups of each group normalisation; must divide the channels of every level."""
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Added to the variance in each group normalisation."""
    freq_shift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """The time's frequencies fall as 10000^(-i / (channels/2 - freq_shift)): 1 as Ho et al., 0 as many others."""
    flip_sin_to_cos: bool = False
    """Put the cosines of the time before its sines."""
    time_table: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Rows of a learned table that begins as the time's sines and cosines: diffusion.T; 0: no table."""
    scale_shift: bool = False
    """Let the time scale the features of a block as well as shift them (Nichol & Dhariwal 2021)."""
    layout: Literal["ho", "report_guided"] = "ho"
    """ho, or report_guided, the report's network by class: 5x5 resizing, attention on the way down alone."""
    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 0
    """Padding of the strided convolutions: 0 pads below and to the right only, as Ho et al.; 1 pads all round."""
    padding: Padding = "zeros"
    """What lies beyond the edges of an image: zeros, or (circular) its opposite edge, for images that wrap around."""
    num_classes: _Index = 0
    """Number of class labels; 0: a network without classes."""
    condition_values: _Index = 0
    """Numbers in the vector that describes each image; 0: none. data.condition sets it."""
    condition_channels: _Index = 0
    """Channels of the image that describes each image; 0: none. data.condition sets it."""
    out_channels: _Index = 0
    """Channels of the output; 0: as many as the prediction needs."""
    augmented: bool = False
    """Whether the network is given the augmentation of each image; train.augment sets it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        last = len(self.mults) - 1
        if wrong := [i for i in self.attention if i > last]:
            there = [level for level in self.attention if level <= last] or [last]
            levels = f"names level {wrong[0]}, but mults={list(self.mults)} makes levels 0 to {last}"
            raise UserError("attention", self.attention, levels, {"attention": there})
        if self.head_channels and self.heads != 1:
            both = f"and head_channels={self.head_channels} were given, and one is enough"
            raise UserError("heads", self.heads, both, ({"heads": 1}, {"head_channels": 0}))
        self._check_channels()
        if self.layout == "report_guided" and not (self.num_classes and self.downsample_padding):
            by_class = {"num_classes": self.num_classes or 10, "downsample_padding": 1}
            raise UserError("layout", self.layout, "is by class and pads all round", by_class)
        if self.layout == "report_guided" and self.padding != "zeros":
            raise UserError("padding", self.padding, 'is of layout="ho"', {"padding": "zeros"})
        return self

    def _check_channels(self) -> None:
        """Refuse a number of channels that the time, a norm or an attention cannot divide among its parts."""
        name, divisor = ("head_channels", self.head_channels) if self.head_channels else ("heads", self.heads)
        step = math.lcm(2, self.groups, divisor)
        near = {"channels": max(round(self.channels / step), 1) * step}
        if self.channels % 2:
            odd = "is odd, but the time needs as many sines as cosines"
            raise UserError("channels", self.channels, odd, near)
        if self.freq_shift >= self.channels / 2:
            shift = f"must be less than channels/2 = {self.channels / 2:g}"
            raise UserError("freq_shift", self.freq_shift, shift, {"freq_shift": 0.0})
        attended = [self.widths[level] for level in (*self.attention, len(self.mults) - 1)]
        parts = ("groups", self.groups, self.widths), (name, divisor, attended)
        fitting = {key: part for key, value, widths in parts if (part := math.gcd(value, *widths)) != value}
        for key, value, widths in parts:
            if wrong := [width for width in widths if width % value]:
                level = f"does not divide the {wrong[0]} channels of a level"
                of = f"(channels={self.channels}, mults={list(self.mults)}, attention={list(self.attention)})"
                raise UserError(key, value, f"{level} {of}", (fitting, near))

    @property
    def condition_size(self) -> int:
        """How many labels, or numbers or channels, the network is told of each image, and a one if given."""
        size = self.condition_values or self.condition_channels
        return size + 1 if size else self.num_classes

    @property
    def label_beside(self) -> bool:
        """Whether the label's embedding stands behind the time's, in place of being added to it."""
        return self.layout == "report_guided" and self.num_classes > 0

    def heads_of(self, width: int) -> int:
        """Heads of a self-attention over so many channels."""
        return width // self.head_channels if self.head_channels else self.heads

    @property
    def multiple(self) -> int:
        """Sides longer than 1 must be multiples of it, to be halved at each level after the first."""
        return 1 << (len(self.mults) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Feature channels of each level, from full resolution down."""
        return tuple(self.channels * mult for mult in self.mults)


UNET = "unet"
_CONDITION = ("num_classes", "condition_values", "condition_channels")
_SHARED = ("type", "options", "in_channels", *_CONDITION, "out_channels", "augmented")
"""The settings of [model] that every network has; all others are the U-Net's."""


@refusing
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelConfig(UNetConfig):
    """The U-Net of these settings, or a network of one's own. UserError as `UNetConfig`, or for another's setting."""

    type: NetworkName = UNET
    """"unet", or a network of your own as MODULE:CLASS, such as "dit:DiT" (docs/extend.md)."""
    options: dict[str, Option] = field(default_factory=dict, hash=False)
    """Arguments of the class of your own network, each by its name, such as width."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(both := [key for key in _CONDITION if getattr(self, key)]) > 1:
            more = f"and {both[1]} were given, and one is enough"
            raise UserError(both[0], getattr(self, both[0]), more, tuple({key: 0} for key in both))
        if self.is_unet:
            if self.options:
                raise UserError("options", self.options, "are of a network of your own, which type names")
            return super()._fits_together()  # type: ignore[operator, no-any-return, unused-ignore]
        others = [key for key in fields(UNetConfig) if key.name not in _SHARED]  # type: ignore[arg-type, unused-ignore]
        if given := [key.name for key in others if getattr(self, key.name) != key.default]:
            settings = f"the settings of {self.type} are its options"
            raise UserError(given[0], getattr(self, given[0]), "is of the U-Net", ({given[0]: None}, settings))
        return self

    @property
    def is_unet(self) -> bool:
        """Whether the network is the U-Net."""
        return self.type == UNET

    @property
    def multiple(self) -> int:
        """As that of `UNetConfig`; of a network of your own 1, for it is tried on an image."""
        return super().multiple if self.is_unet else 1

    @property
    def arguments(self) -> dict[str, Any]:
        """What the part that ``type`` names is given besides channels and labels: of the U-Net all of its settings."""
        names = {key.name for key in fields(UNetConfig)} - {"in_channels", "out_channels"}  # type: ignore[arg-type, unused-ignore]
        return {name: getattr(self, name) for name in names} if self.is_unet else self.options

    @property
    def unused(self) -> tuple[str, ...]:
        """The settings that are not this network's, which files leave out."""
        names = [key.name for key in fields(UNetConfig)]  # type: ignore[arg-type, unused-ignore]
        return ("type", "options") if self.is_unet else tuple(name for name in names if name not in _SHARED)


def merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a [model] with those of another as its base, which gives only `_SHARED` ones to another type."""
    if "type" in given and given["type"] != base.get("type", UNET):
        base = {key: value for key, value in base.items() if key in _SHARED and key not in ("type", "options")}
    return {**base, **given}
