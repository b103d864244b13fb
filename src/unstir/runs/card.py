"""What a run knows of its data: data.json, with a checksum of its own, and the labels of its classes."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from unstir.data.classes import class_number
from unstir.data.disk import read_bytes
from unstir.errors import UserError, of_pydantic
from unstir.pictures.grid import of_class
from unstir.pixels import PIXELS, Scale
from unstir.runs.files import check, check_format, decode, encode, write_text

if TYPE_CHECKING:
    from unstir.data.store import Store

FORMAT = 10
"""Of the run folder: grows when any of its files but the checkpoints, which have a number of their own, changes."""

NAME = "data.json"
CONDITIONS = "conditions.npy"

GOLDEN = 2_654_435_769  # 2^32 over the golden ratio
_Size = Annotated[int, Field(ge=1)]
_Count = Annotated[int, Field(ge=0)]
NO_CLASSES = "was given, but this network knows no classes"
MOST_SHARES = 1 << 30  # the greatest sum of shares: their products with fractions have 63 bits


@dataclass(frozen=True)
class ConditionCard:
    """What a run remembers of its conditions: their ``shape``, [K] or [C', H, W], and how each number or channel is
    scaled, (value - offset) / scale. ``sha256`` is that of RUN/conditions.npy.
    """

    shape: tuple[_Size, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    sha256: str


@dataclass(frozen=True)
class DataCard:
    """What a run remembers of its data: image shape (C, H, W), class names, counts by split, the content's hash, the
    id of the ``run`` itself (`Run.begin`), "" of data that is no run's, the ``scale`` of the values, and the
    conditions, if any. Of data that nobody knows counts are 0 and the hash is "".
    """

    shape: tuple[_Size, _Size, _Size]
    classes: tuple[str, ...]
    counts: dict[str, _Count] = field(default_factory=lambda: {"train": 0, "held_out": 0})
    content_hash: str = ""
    run: str = ""
    scale: Scale = PIXELS
    condition: ConditionCard | None = None

    def __post_init__(self) -> None:
        rising = all(-math.inf < low < high < math.inf for low, high in self.scale.pairs)
        if {len(self.scale.low), len(self.scale.high)} not in ({0}, {self.shape[0]}) or not rising:
            raise UserError("scale", self.scale.pairs, f"must be finite and rise in each of {self.shape[0]} channels")

    def plain(self) -> dict[str, Any]:
        """As JSON has it, where there are no tuples."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "DataCard":
        """The card that `plain` wrote. Raises ValueError for anything else."""
        check(values, dict.fromkeys((item.name for item in dataclasses.fields(cls)), lambda _: True))
        try:
            card = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise ValueError(str(of_pydantic(error, lambda _: None))) from None
        of = card.condition
        fits = of is None or (len(of.shape) in (1, 3) and len(of.offset) == len(of.scale) == of.shape[0])
        if not fits or card.counts.keys() != {"held_out", "train"}:
            raise ValueError("its counts or condition are of other channels, splits or sides")
        return card

    @classmethod
    def of_store(cls, store: "Store") -> "DataCard":
        """The card of a store."""
        return cls(store.shape, store.classes, store.counts, store.content_hash, scale=store.scale)


def save(folder: Path, card: DataCard) -> None:
    """Write data.json into a run's folder; errors as `write_text`."""
    write_text(folder / NAME, encode({"unstir_data": FORMAT, **card.plain()}, indent=1) + "\n")


def load(folder: Path) -> DataCard:
    """Read data.json of a run. Raises UserError where it is missing, damaged or of another format."""
    file, restore = folder / NAME, "restore it from a copy, or train anew elsewhere"
    try:
        values = decode(read_bytes(file))
        check_format(file, values.pop("unstir_data", None), FORMAT)
        return DataCard.of(values)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("", folder, f"is not a whole run: {NAME} is missing", restore) from None
    except ValueError as error:
        raise UserError("", file, f"is damaged: {error}", restore) from None


@dataclass(frozen=True)
class Labels:
    """The labels that a network knows: 0..count-1 for the classes with these ``names``, none where ``count`` is 0.

    With ``has_null`` it was trained with labels hidden (train.condition_dropout), and label ``count`` says nothing.
    """

    count: int = 0
    names: tuple[str, ...] = ()
    has_null: bool = False

    @property
    def known(self) -> int:
        """All labels that the network knows, that which says nothing too."""
        return self.count + self.has_null

    def of(self, indices: Tensor, label: int | None = None, shares: Sequence[int] = ()) -> Tensor | None:
        """The class that each image with these indices shows, int64 [B]; None where the network knows no classes.

        It is ``label`` for all, or by ``shares`` (numbers of images by class), or each class in turn. By shares, image
        i has the class in whose part of [0, 1] the fraction of (i + 1/2) / golden ratio lies, which keeps to the shares
        within a few images, however many are drawn (Weyl's sequence, in whole numbers: a large float has no fraction).
        """
        if label is not None:
            return torch.full_like(indices, label)
        if not shares:
            return indices % self.count if self.count else None
        edges = torch.tensor(shares, device=indices.device).cumsum(0)
        fractions = (2 * indices + 1) * GOLDEN % (1 << 33)  # in units of 2^-33
        return torch.searchsorted(edges, fractions * edges[-1] >> 33, right=True)

    def captions(self, labels: Tensor | None) -> list[str]:
        """The names for pictures of classes, int64 [B]; none where there are no labels."""
        return [] if labels is None else [of_class(label, self.names[label]) for label in labels.tolist()]

    def numbers(self, texts: Sequence[str], key: str = "label") -> tuple[int, ...]:
        """The numbers of the classes that texts name, by name or number; UserError for one that is not known."""
        if texts and not self.count:
            leave_out: dict[str, object] = {} if key == "labels" else {key: None}  # a morph needs its labels
            raise UserError(key, " ".join(texts), NO_CLASSES, (leave_out, "name a run with classes"))
        last = len(self.names) - 1
        for text in texts:  # a number is answered by numbers, not by the name of a class that looks like it
            if re.fullmatch("-?[0-9]{1,9}", text) and text not in self.names and not 0 <= int(text) <= last:
                raise UserError(key, int(text), f"is outside 0..{last}, the classes of this run", "or give a name")
        return tuple(class_number(self.names, text, key) for text in texts)

    def number(self, text: str | None) -> int | None:
        """As `numbers`, for one class or none."""
        return None if text is None else self.numbers([text])[0]

    def check(self, label: int | None, shares: Sequence[int] = ()) -> None:
        """Raise UserError for a label that the network does not know, or shares that are not of its classes."""
        if label is not None and not self.count:
            raise UserError("label", label, NO_CLASSES, {"label": None})
        if label is not None and not 0 <= label < self.count:
            raise UserError("label", label, f"is outside 0..{self.count - 1}, the classes of this run")
        if shares and not self.count:
            raise UserError("shares", tuple(shares), NO_CLASSES, {"shares": None})
        if shares and label is not None:
            raise UserError("label", label, "and shares were given", ({"label": None}, {"shares": None}))
        if shares and (len(shares) != self.count or min(shares) < 0 or not 1 <= sum(shares) < MOST_SHARES):
            raise UserError("shares", tuple(shares), f"must be {self.count} counts, with a sum in 1..{MOST_SHARES - 1}")

    def or_null(self, label: int | None, key: str = "label") -> int | None:
        """The label of an image that is given, else the null label; UserError, naming ``key``, without either."""
        self.check(label)
        if label is None and self.count and not self.has_null:
            raise UserError(key, None, f"must name the class of the image, 0..{self.count - 1}")
        return self.count if label is None and self.has_null else label
