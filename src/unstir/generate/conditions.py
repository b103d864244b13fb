"""Conditions as they are typed: numbers, a CSV or NumPy file, a picture, or a folder of pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unstir.data.decoding import decoded
from unstir.data.disk import natural, open_file
from unstir.data.images import EXTENSIONS, as_float32
from unstir.data.source import read_array
from unstir.errors import UserError
from unstir.progress import is_numeral
from unstir.runs.model import Model


def read_conditions(text: str | None, model: Model) -> Tensor | None:
    """Conditions for a `Job`, in the units of the data: float32 [K] or [N, K], or [N, C', H, W]; None without a text.

    The text is numbers (`of_numbers`), or names a .csv file with a row an image, a .npy file, a picture, or a folder of
    pictures in the order of their names. Raises UserError for what cannot be read or does not fit.
    """
    if text is None:
        return None
    if model.conditions is None:
        raise UserError("condition", text, "was given, but this network knows none", {"condition": None})
    path = Path(text)
    if any(map(is_numeral, text.split(","))) and not path.exists():
        rows = of_numbers(_rows([text.split(",")], text)[0].tolist(), model)
    elif path.suffix == ".csv":
        with open_file(path) as file:
            rows = _rows(list(csv.reader(file.read().decode("utf-8-sig", "replace").splitlines())), text)
    elif path.suffix == ".npy":
        rows = torch.from_numpy(as_float32(read_array(path, "condition")))
    elif not path.exists():
        raise UserError("condition", text, "is neither numbers nor a file")
    else:
        rows = _pictures(path, model.conditions.card.shape)
    model.check_condition(rows)
    return rows


def of_numbers(numbers: Sequence[float], model: Model) -> Tensor:
    """A vector, float32 [K], or image i of those that the run keeps, [C', H, W]; UserError where there is none."""
    if model.conditions is None or not model.conditions.is_image:
        return torch.tensor(numbers)
    kept = model.conditions.kept
    if len(numbers) != 1 or numbers[0] not in range(len(kept)):
        raise UserError("condition", list(numbers), f"must be the number of a held-out image, 0 to {len(kept) - 1}")
    return kept[int(numbers[0])]


def _rows(lines: list[list[str]], text: str) -> Tensor:
    """Numbers in rows, float32 [N, K]; a first row of names is left out."""
    lines = [line for line in lines if line]
    names = lines and not any(map(is_numeral, lines[0]))
    try:
        return torch.tensor([[float(cell) for cell in line] for line in (lines[1:] if names else lines)])
    except ValueError:
        raise UserError("condition", text, "must be rows of as many numbers each, divided by commas") from None


def _pictures(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A picture, or those of a folder: float32 [N, C', h, w], 0..255."""
    if len(shape) != 3:
        wanted = f"give {shape[0]} numbers divided by commas, or a .csv or .npy file with a row an image"
        raise UserError("condition", path, "is no vector of numbers", wanted)
    files = [file for file in path.iterdir() if file.suffix.lower() in EXTENSIONS] if path.is_dir() else [path]
    files = sorted(files, key=lambda file: natural(file.name))
    pictures = [torch.tensor(decoded(file, None, shape[0], key="condition").pixels) for file in files]
    if len({pixels.shape for pixels in pictures}) != 1:
        raise UserError("condition", path, "must hold pictures of one size", "name a folder of pictures")
    return torch.stack(pictures).float()
