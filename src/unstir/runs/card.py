"""What a run remembers of its data: data.json, with a checksum of its own."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unstir.errors import UserError, remedy
from unstir.runs.files import write_text
from unstir.runs.kinds import check, check_format, is_count, is_text
from unstir.runs.lines import decode, encode

FORMAT = 3
"""Of the run folder: grows when any of its files but the checkpoints, which have a number of their own, changes."""

NAME = "data.json"


@dataclass(frozen=True)
class DataCard:
    """What a run remembers of its data: image shape (C, H, W), class names, counts by split, and the content's hash."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: dict[str, int]
    content_hash: str

    def plain(self) -> dict[str, Any]:
        """As JSON has it, where there are no tuples."""
        return {**dataclasses.asdict(self), "shape": list(self.shape), "classes": list(self.classes)}


def save(folder: Path, card: DataCard) -> None:
    """Write data.json into a run's folder; UserError where it cannot be written."""
    write_text(folder / NAME, encode({"unstir_data": FORMAT, **card.plain()}, indent=1) + "\n")


def load(folder: Path) -> DataCard:
    """Read data.json of a run. Raises UserError where it is missing, damaged or of another format."""
    file = folder / NAME
    restore = "restore it from a copy, or train anew elsewhere"
    try:
        values = decode(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder} is not a whole run: {NAME} is missing; {restore}") from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {remedy(error)}") from None
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}; {restore}") from None
    check_format(file, values.get("unstir_data"), FORMAT)
    try:
        check(values, KINDS)
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}; {restore}") from None
    shape, classes = tuple(values["shape"]), tuple(values["classes"])
    return DataCard(shape, classes, dict(values["counts"]), values["content_hash"])


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_count(side) and side > 0 for side in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"train", "held_out"} and all(map(is_count, value.values()))


KINDS = {"shape": _is_shape, "classes": _are_names, "counts": _are_counts, "content_hash": is_text}
"""What data.json holds besides its format, and of what kind each is."""
