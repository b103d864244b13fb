"""The likelihood of single images under a model: the bound of each, whole and by its parts, and as a table."""

import csv
import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir.data import Store, is_store
from unstir.data.classes import matched
from unstir.data.folder import arrange
from unstir.data.listing import list_folder
from unstir.diffusion.likelihood import Bound
from unstir.errors import UserError, within_memory
from unstir.metrics.features import check_images
from unstir.metrics.images import Like, read
from unstir.metrics.likelihood import Protocol, bounds_of, check_terms, conditions_of, terms_of
from unstir.progress import counted
from unstir.runs.conditions import STORED
from unstir.runs.files import check_file, make_folder, replacing
from unstir.runs.model import Model

logger = logging.getLogger(__name__)

COLUMNS = "bits_per_dim", "prior", "diffusion", "decoder"


@dataclass(frozen=True, eq=False)
class ImageLikelihood:
    """The bound of each of B images, in bits per dimension: float64 [B] each, on the CPU.

    ``bits_per_dim`` is the sum of its parts: of the ``prior``, of the ``diffusion`` (all L_{t-1} from t = 2 on) and of
    the ``decoder``. ``error`` is the standard error of an estimate from fewer times; None where every term was computed
    or too few to tell.
    """

    bits_per_dim: Tensor
    prior: Tensor
    diffusion: Tensor
    decoder: Tensor
    error: Tensor | None = None


@within_memory("batch_size")
def likelihood(
    model: Model,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    condition: Tensor | None = None,
    calls: int = 0,
    variance: str = "auto",
    clip: bool = True,
    seed: int = 0,
    batch_size: int = 64,
) -> ImageLikelihood:
    """The bound of each of ``images``, uint8 [B, C, H, W] in 0..255, or float32 in units of the model's data.

    ``labels``, int64 [B], are given to a network with classes; without them it has the label that says nothing.
    ``condition``, [B, ...] in its units or one for all, is given to one with conditions, by default that of the images
    themselves; where it is stored, it is then hidden, which is logged. The noise of image i is a function of ``seed``
    and i, and all images share their times, so that they compare. The other options are those of `Protocol`. Raises
    UserError for what does not fit the model, NotFiniteError for weights that answer with NaN.
    """
    asked = Protocol(calls=calls, variance=variance, clip=clip, seed=seed, batch_size=batch_size)
    protocol = check_terms(model, asked)
    _check(images, model)
    model.check_condition(condition)
    if condition is not None and model.conditions and condition.ndim == len(model.conditions.card.shape):
        condition = condition.expand(len(images), *condition.shape)
    if labels is None and (null := model.labels.or_null(None)) is not None:
        labels = torch.full((len(images),), null)
    for key, column in (("labels", labels), ("condition", condition)):
        if column is not None and len(column) != len(images):
            raise UserError(key, list(column.shape), f"must be one for each of {counted(len(images), 'image')}")
    if condition is None and model.conditions is not None and model.conditions.name == STORED:
        logger.warning("no condition was given: the bound is of images without condition")
    given = labels if condition is None else condition
    batches = [(0, index) for index in torch.split(torch.arange(len(images)), batch_size)]
    rows, estimated = [], 3 <= calls < model.process.T
    for bound in bounds_of(model, images, given, protocol, batches, "bounding images"):
        error = _error(bound) if estimated else torch.zeros_like(bound.nats)
        parts = bound.nats, bound.prior, bound.terms @ bound.weights, bound.decoder, error
        rows.append(bound.to_bits(torch.stack(parts, 1)))
    whole, prior, diffusion, decoder, error = torch.cat(rows).unbind(1)
    return ImageLikelihood(whole, prior, diffusion, decoder, error if estimated else None)


def _check(images: Tensor, model: Model) -> None:
    check_images(images, model.shape, model.data.scale, model.folder, 1)
    if bool(images.isinf().any()) or bool(images.isnan().flatten(1).all(1).any()):
        raise UserError("images", None, "must be finite numbers, or NaN where some are missing")


def _error(bound: Bound) -> Tensor:
    """The standard error of the sum of terms from the choice of times, in nats: [B].

    Neighbouring parts of the times are taken together by two, the first three where their number is odd: the
    deviation within such a group holds what a term varies by, and some more (collapsed strata, Cochran 1977, 5A.12).
    """
    groups = (bound.terms * bound.weights).tensor_split(max(len(bound.times) // 2, 1), dim=1)
    return torch.stack([group.var(1) * group.shape[1] for group in groups]).sum(0).sqrt()


def named_images(path: Path, model: Model, split: str, label: str | None) -> tuple[Tensor, Tensor | None, list[str]]:
    """The images of any source that `pack` reads, or those of a ``split`` of a store, with their labels and names.

    In the place of labels are the conditions of the images, where the model knows such. ``label``, a class by
    name or number, is that of all; by default each has its own, where its class is the model's. Images are called by
    their files in a folder, else by their numbers. Raises UserError as `images.read`.
    """
    number, classes, files = model.labels.number(label), model.data.classes, list[str]()
    if is_store(path):
        store = Store.open(path)
        store.verify()
        images, labels = store.images(split), conditions_of(model, store, split)
        if model.conditions is None:
            numbers = matched(store.classes, classes)
            labels = None if labels is None or numbers is None else torch.tensor(numbers)[labels]
    else:
        known = classes if label is None else ()
        images, *given = read(path, Like(model.folder, model.shape, known, model.data.scale))
        labels = given[model.conditions is not None]
        files = list(arrange(list_folder(path).entries, 0.0, 0).items) if path.is_dir() else files
    if number is not None:
        labels = torch.full((len(images),), number)
    names = files if len(files) == len(images) else [str(index) for index in range(len(images))]
    return images, labels if model.labels.count or model.conditions else None, names


def save_scores(
    model: Model, source: Path, file: Path | None, *, split: str = "held_out", label: str | None = None, **options: Any
) -> dict[str, list[Any]]:
    """The likelihood of each image of a source, as `named_images` reads it: columns, also written as a CSV ``file``.

    They are "image", its name, and the fields of `ImageLikelihood`. ``options`` are those of `likelihood`. Raises
    UserError for what cannot be read, computed or written.
    """
    if file is not None:
        check_file(file, "per_image")
    check_terms(model, Protocol(**options))
    images, given, names = named_images(source, model, split, label)
    options["labels" if model.conditions is None else "condition"] = given
    values = vars(likelihood(model, images, **options))
    columns = {"image": names, **{name: value.tolist() for name, value in values.items() if value is not None}}
    if file is not None:
        make_folder(file.absolute().parent)
        with replacing(file) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([columns, *zip(*columns.values(), strict=True)])
    return columns


def describe(columns: Mapping[str, Sequence[Any]], calls: int, T: int) -> str:
    """The means over the images of `save_scores` in a line; as these share their ``calls`` of T, so do their errors."""
    whole, *parts = (f"{name} {statistics.mean(columns[name]):.4f}" for name in COLUMNS)
    num, terms = len(columns["image"]), {"calls": calls or T, "T": T}
    errors = [statistics.stdev(columns[COLUMNS[0]]) / num**0.5] if num > 1 else []
    if terms["calls"] < T:
        errors.append(statistics.mean(columns["error"]) if "error" in columns else math.nan)
    error = f" ± {math.hypot(*errors):.4f}".replace("nan", "unknown") if errors else ""
    return f"{whole.split()[1]}{error} bits/dim ({', '.join(parts)}); {counted(num, 'image')}, {terms_of(terms)}"
