"""What describes each image to a network besides its class: a vector [K] or an image [C', H, W], by data.condition.

It is stored with the images or a function of them. A network is given it scaled, with one number or channel more that
is 1; where it is hidden all are 0, in training and for guidance.

    vectors               less the mean of the training images, over their standard deviation
    stored images         from the range of each channel in the training images to [-1, 1]
    images of a function  as the images' own channels are (pixels: 0..255 to [-1, 1])
"""

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unstir import randomness
from unstir.data.store import Store
from unstir.errors import UserError
from unstir.parts import OURS, condition, make
from unstir.pixels import HALF, enlarged, known, to_uint8
from unstir.runs.card import CONDITIONS, ConditionCard
from unstir.runs.config import Config
from unstir.runs.files import write_bytes
from unstir.runs.sections import DataConfig

KEPT = 64  # of held-out images, so that a run can be sampled without its data
STORED = "stored"
_PIXELS = 0.0, 2 * HALF  # what -1 and 1 are
_AT_ONCE = 1024  # images that a function is given when a run begins
_SECTION = "data.condition_options"
HALVES = "left", "right", "top", "bottom"


@condition
def low_resolution(images: Tensor, factor: int = 2) -> Tensor:
    """Images [B, C, H, W] with each square of ``factor`` x ``factor`` pixels replaced by its mean."""
    height, width = images.shape[2:]
    if factor < 2 or height % factor or width % factor:
        raise UserError("factor", factor, f"must be 2 or more, and divide {height} and {width}", {"factor": 2})
    small = nn.functional.avg_pool2d(images, factor)
    return small.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


@condition
def masked(images: Tensor, part: str = "right") -> Tensor:
    """Images [B, C, H, W] with one half of them grey: the ``part`` that is to be filled in."""
    if part not in HALVES:
        raise UserError("part", part, f"must be one of {', '.join(HALVES)}")
    height, width = images.shape[2:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    upper, left = 2 * rows < height, 2 * columns < width
    hidden = {"left": left, "right": ~left, "top": upper, "bottom": ~upper}[part].expand(height, width)
    return images.masked_fill(hidden.to(images.device), 0.0)


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of a run, their scale (``card``), those kept (``read``), and whether training hid some."""

    name: str
    options: Mapping[str, Any] = field(repr=False)
    card: ConditionCard
    hides: bool
    read: Callable[[], Tensor] = field(repr=False)

    @classmethod
    def of(
        cls, rows: Tensor, offset: Sequence[float] = (), scale: Sequence[float] = (), *, hides: bool = False
    ) -> "Conditions":
        """What describes images to a network that was trained in a loop of one's own.

        ``rows`` in any units, float [N, K] or [N, C', H, W], describe the images that are drawn where nothing else is
        asked. The network is given (row - offset) / scale, with a number for each of the K or C', by default 0 and 1,
        and behind it a number or channel of ones. With ``hides`` it was trained to do without, given zeros.
        """
        rows, shape = rows.detach().cpu().float(), tuple(rows.shape[1:])
        scaled = tuple(offset) or (0.0,) * shape[0], tuple(scale) or (1.0,) * shape[0]
        for name, numbers in zip(("offset", "scale"), scaled, strict=True):
            if len(numbers) != shape[0] or not all(map(math.isfinite, numbers)) or (name == "scale" and 0 in numbers):
                raise UserError(name, numbers, f"must be {shape[0]} finite numbers, no scale 0")
        card = ConditionCard(shape, *scaled, _hash(rows))
        return cls(STORED, {}, card, hides, lambda: rows)

    @classmethod
    def measured(cls, data: DataConfig, store: Store) -> "Conditions":
        """Those of a new run on a store, which it is to keep: of some held-out images, or training ones where none is
        held out. Raises UserError where the store has none, or the function fails.
        """
        unscaled = _unscaled(data)
        shape = tuple(unscaled._rows(store, "train", torch.arange(1))[0].shape)
        if len(shape) == 3 and data.condition != STORED:
            is_like = shape[0] == store.shape[0] and store.scale.is_float
            low, high = map(torch.tensor, (store.scale.low, store.scale.high) if is_like else _PIXELS)
            offset, scale = ((high + low) / 2).expand(shape[0]), ((high - low) / 2).expand(shape[0])
        else:
            rows = unscaled._rows(store, "train", torch.arange(store.count("train")))
            if len(shape) == 3:
                low, high = rows.amin((0, 2, 3)), rows.amax((0, 2, 3))
                offset, scale = (high + low) / 2, (high - low) / 2
            else:
                offset, scale = rows.double().mean(0), rows.double().std(0, correction=0)
        scale = scale.where(scale > 0, 1.0)
        card = ConditionCard(shape, tuple(offset.float().tolist()), tuple(scale.float().tolist()), "")
        scaled = replace(unscaled, card=card)
        split = "held_out" if store.count("held_out") else "train"
        kept = scaled.rows_of(store, split, some_images(store, split, KEPT))
        return replace(scaled, card=replace(card, sha256=_hash(kept)), read=lambda: kept)

    @property
    def is_image(self) -> bool:
        """Whether they are images."""
        return len(self.card.shape) == 3

    @cached_property
    def kept(self) -> Tensor:
        """The conditions of some held-out images, in their units: float32 [n, ...]; UserError where damaged."""
        return self.read()

    def keep(self, folder: Path) -> None:
        """Write conditions.npy into the folder of a run."""
        write_bytes(folder / CONDITIONS, content(self.kept))

    def checked(self, values: Tensor) -> Tensor:
        """Conditions in units, one or one an image, of smaller images too: float32 [N, ...]. UserError for a misfit."""
        shape, values = self.card.shape, torch.as_tensor(values).float()
        rows = values[None] if values.ndim == len(shape) else values
        if self.is_image and rows.ndim == 4 and rows.shape[1] == shape[0]:
            rows = enlarged(rows, shape)
        if tuple(rows.shape[1:]) != shape or not len(rows):
            due = ", ".join(map(str, shape))
            raise UserError("condition", None, f"has the shape {list(values.shape)}, not [{due}] or [N, {due}]")
        if not bool(rows.isfinite().all()):
            raise UserError("condition", None, "has values that are NaN or infinite")
        if self.name in OURS["condition"]:  # of what is given the function leaves what it would of an image
            rows = self._in_units(self._of(self._scaled(rows)))
        return rows

    def rows(self, indices: Tensor, given: Tensor | None = None) -> Tensor:
        """Row i mod N of the conditions ``given``, or of those kept, for each index i, int64 [B], in their units."""
        if given is None:
            return self.kept[indices.cpu() % len(self.kept)]
        rows = given[None] if given.ndim == len(self.card.shape) else given
        return self.checked(rows[indices.cpu() % len(rows)])

    def pixels(self, indices: Tensor, given: Tensor | None, channels: int) -> Tensor:
        """The images that describe images with these indices, for a picture of so many channels: uint8 [B, C, H, W]."""
        scaled = self._scaled(self.rows(indices, given))
        shown = scaled if scaled.shape[1] == channels else scaled.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        return to_uint8(shown)

    def hash(self, given: Tensor | None) -> str:
        """The SHA-256 of the conditions ``given``, or of those kept."""
        return self.card.sha256 if given is None else _hash(given.float())

    def given(self, rows: Tensor, device: torch.device) -> Tensor:
        """What a network gets for conditions in their units, [B, ...]: float32 [B, K + 1] or [B, C' + 1, H, W]."""
        return with_mark(self._scaled(rows.to(device)))

    def nothing(self, num: int, device: torch.device) -> Tensor:
        """What a network gets for so many images whose conditions are hidden: zeros [num, K + 1] or with sides."""
        size, *sides = self.card.shape
        return torch.zeros(num, size + 1, *sides, device=device)

    def of_images(self, x_0: Tensor, rows: Tensor | None = None) -> Tensor:
        """What a network gets for images [B, C, H, W] in [-1, 1], whose stored conditions are ``rows`` (scaled)."""
        if rows is None:
            rows = self._of(x_0) if self.is_image else self._scaled(self._of(x_0))
        return with_mark(rows.to(x_0))

    def stored(self, store: Store, split: str, index: Tensor, device: torch.device) -> Tensor | None:
        """The stored conditions of images, scaled: float32 [B, ...]; None where they are a function of the images."""
        if self.name != STORED:
            return None
        rows = store.conditions(split)
        assert rows is not None
        return self._scaled(rows[index].to(device))

    def told(self, x_0: Tensor, rows: Tensor | None) -> Tensor:
        """What a network gets for images [B, C, H, W]: ``rows`` scaled, a function of them, or hidden; or UserError."""
        if rows is not None:
            return self.given(self.checked(rows), x_0.device)
        if self.name != STORED:
            return self.of_images(x_0)
        if not self.hides:
            raise UserError("condition", None, "must describe the images, for none were hidden in training")
        return self.nothing(len(x_0), x_0.device)

    def of_store(self, store: Store, split: str, index: Tensor, x_0: Tensor) -> Tensor:
        """What a network gets for the images ``x_0`` of a store with these numbers, int64 [B]."""
        return self.of_images(x_0, self.stored(store, split, index, x_0.device))

    def rows_of(self, store: Store, split: str, index: Tensor) -> Tensor:
        """The conditions of the images of a split with these numbers, int64 [n], in their units: float32 [n, ...]."""
        rows = self._rows(store, split, index)
        return self._in_units(rows) if self.is_image and self.name != STORED else rows

    def _rows(self, store: Store, split: str, index: Tensor) -> Tensor:
        """As `rows_of`, images of a function as it returns them."""
        if self.name == STORED:
            if (rows := store.conditions(split)) is None:
                raise UserError("data.condition", self.name, f"is not in {store.path}", "pack conditions with it")
            return rows[index]
        parts = []
        for some in torch.split(index, _AT_ONCE):
            x_0, _ = known(store.scale.to_model(store.images(split)[some]), store.scale)
            values = self._of(x_0)
            if values.ndim not in (2, 4) or len(values) != len(x_0) or values.shape[2:] not in ((), x_0.shape[2:]):
                due = f"[{len(x_0)}, K] or [{len(x_0)}, C, {', '.join(map(str, x_0.shape[2:]))}]"
                raise UserError("data.condition", self.name, f"returns {list(values.shape)}, not {due}")
            parts.append(values)
        return torch.cat(parts).float()

    def _of(self, x_0: Tensor) -> Tensor:
        values = make("condition", self.name, x_0, options=self.options, section=_SECTION)
        if not isinstance(values, Tensor):
            raise UserError("data.condition", self.name, f"returns a {type(values).__name__}, not a tensor")
        return values

    def _scaled(self, rows: Tensor) -> Tensor:
        ends = self._ends(rows)
        return (rows - ends[0]) / ends[1]

    def _in_units(self, rows: Tensor) -> Tensor:
        ends = self._ends(rows)
        return rows * ends[1] + ends[0]

    def _ends(self, rows: Tensor) -> Tensor:
        """Offset and scale, to be broadcast over rows [B, K] or [B, C', H, W]: [2, 1, K] or [2, 1, C', 1, 1]."""
        ends = torch.tensor((self.card.offset, self.card.scale), device=rows.device)
        return ends.view(2, 1, -1, *[1] * (rows.ndim - 2))


def some_images(store: Store, split: str, num: int) -> Tensor:
    """``num`` images of a split, or all of fewer, at random, for those of a folder lie by class: int64 [n]."""
    return randomness.Order(0, "conditions", 0, store.count(split))[:num]


def with_mark(scaled: Tensor) -> Tensor:
    """Scaled conditions with a last number or channel of ones, which says that they are given."""
    return torch.cat((scaled, torch.ones_like(scaled[:, :1])), 1)


def _unscaled(data: DataConfig) -> Conditions:
    return Conditions(data.condition, data.condition_options, ConditionCard((), (), (), ""), True, Tensor)


def conditioned(config: Config, store: Store) -> Config:
    """The config of a network that knows what data.condition names, and can be guided."""
    data, train = config.data, config.train
    if not data.condition:
        return config
    size, *image = _unscaled(data)._rows(store, "train", torch.arange(1))[0].shape
    model = replace(config.model, condition_values=0 if image else size, condition_channels=size if image else 0)
    for name in ("condition_channels", "condition_values"):
        if (given := getattr(config.model, name)) not in (0, due := getattr(model, name)):
            raise UserError(f"model.{name}", given, f"is not the {due} of data.condition", {f"model.{name}": None})
    train = replace(train, condition_dropout=train.condition_dropout or 0.1)
    return replace(config, model=model, train=train)


def read_kept(folder: Path, sha256: str) -> Tensor:
    """The content of a run's conditions.npy; UserError where that is missing, or not of this hash."""
    file = folder / CONDITIONS
    try:
        bytes_ = file.read_bytes()
    except OSError:
        raise UserError("", file, "cannot be read", "restore it from a copy") from None
    if hashlib.sha256(bytes_).hexdigest() != sha256:
        raise UserError("", file, "was changed or damaged", "restore it from a copy")
    return torch.from_numpy(np.load(io.BytesIO(bytes_)))


def _hash(rows: Tensor) -> str:
    return hashlib.sha256(content(rows)).hexdigest()


def content(rows: Tensor) -> bytes:
    """The bytes of conditions.npy."""
    file = io.BytesIO()
    np.save(file, rows.numpy())
    return file.getvalue()
