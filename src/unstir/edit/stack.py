"""Filling in a stack of images, each with a mask of its own: the results, their mean and their deviation, as arrays."""

import hashlib
import itertools
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unstir.data import pack
from unstir.data.folder import arrange
from unstir.data.images import Shape
from unstir.data.listing import list_folder
from unstir.data.source import read_array
from unstir.edit.editing import finished
from unstir.edit.edits import filled
from unstir.edit.files import Box, read_mask
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.pictures.grid import grid
from unstir.pixels import known
from unstir.runs import sidecar
from unstir.runs.model import Model

_MASK = re.compile(r"[ _-]?mask(?=[.]\w+$)")  # behind the name of an image in that of its mask


@dataclass(frozen=True, eq=False)
class Filled:
    """What a stack of N images was filled in with: ``made``, uint8 or float32 [N, num, C, H, W] in units of the data.

    ``given`` are the images, [N, C, H, W], and ``keep``, bool [N, C, H, W], what was kept of them. ``settings`` are all
    that decides the values, ``calls`` the network calls made.
    """

    given: Tensor
    keep: Tensor
    made: Tensor
    settings: dict[str, Any]
    calls: int

    @property
    def mean(self) -> Tensor:
        """The mean over the results of each image: float32 [N, C, H, W]."""
        return self.made.float().mean(1)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation over the results of each image, 0 where it was kept: float32 [N, C, H, W]."""
        return self.made.float().std(1) if self.made.shape[1] > 1 else torch.zeros(self.given.shape)


def inpaint_stack(
    model: Model, images: Tensor, keep: Tensor | None, job: Job, *, resamples: int = 3, jump: int = 1
) -> Filled:
    """Fill in each of ``images`` ``job.num`` times where ``keep`` is False, and where values are missing (NaN).

    ``images`` are uint8 or float32 [N, C, H, W] in units of the model's data, ``keep`` is bool [N or 1, 1 or C, H, W],
    or None for what is missing alone. ``resamples`` and ``jump`` are as for `inpaint`, whose results are those of the
    first image. Raises UserError for what does not fit the model.
    """
    scale, shape = model.data.scale, (len(images), *model.shape)
    if images.shape != shape or images.is_floating_point() != scale.is_float:
        kind = "float32" if scale.is_float else "uint8"
        raise UserError("images", list(images.shape), f"must be {kind} {list(shape)}")
    x_0, present = known(scale.to_model(images), scale)
    here = torch.ones(1, 1, *shape[2:], dtype=torch.bool) if keep is None else keep
    _check_masks(here, shape, "keep", None)
    here = here.expand(shape) if present is None else here & present
    if here.all():
        raise UserError("mask", None, "or box must say what to fill in, for nothing is missing", "give one of them")
    editing, made = finished(filled(model, x_0, here, job, resamples, jump))
    options: dict[str, Any] = {"resamples": resamples, "jump": jump}
    for name, tensor in (("images", images), ("keep", here)):
        options[name] = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    edited = editing.done("inpaint", {}, images, made, (), **options)
    made = torch.where(here[:, None], images[:, None], made.view(len(images), job.num, *model.shape))
    return Filled(images, here, made, edited.settings, edited.calls)


def _check_masks(keep: Tensor, shape: Sequence[int], key: str, given: Path | None) -> None:
    sizes = itertools.product((1, shape[0]), (1, shape[1]), (shape[2],), (shape[3],))
    if keep.dtype != torch.bool or tuple(keep.shape) not in list(sizes):
        due = f"must be bool [N or 1, 1 or C, H, W] for images {list(shape)}, not {list(keep.shape)}"
        raise UserError(key, given, due)


def read_stack(path: Path, model: Model) -> tuple[Tensor, Tensor | None]:
    """Images of a folder or NumPy file as the data would hold them, [N, C, H, W], and an .npz file's conditions."""
    shape, depth = model.shape, "float" if model.data.scale.is_float else "8"
    with tempfile.TemporaryDirectory() as folder:
        store = pack(path, Path(folder) / "images", size=shape[1:], channels=shape[0], depth=depth, held_out=0.0)
        if store.refused:
            raise UserError("", store.refused[0][0], f"cannot be filled in: {store.refused[0][1]}").at(path)
        images, described = store.together("images"), store.together("conditions")
        assert images is not None
        return images, None if model.conditions is None else described


def read_masks(mask: Path | None, box: Box | None, shape: Sequence[int]) -> Tensor | None:
    """What to keep of images of a shape [N, C, H, W], bool [N or 1, 1 or C, H, W]: all but the ``box`` or a mask.

    That is a picture for all, as `read_mask` takes it, a folder with one for each in the order of their names (without
    "_mask"), or an array [H, W], [N, H, W] or [N, 1 or C, H, W] that is not 0 where an image is to be filled in. None
    without any.
    """
    size: Shape = (1, shape[2], shape[3])
    if mask is None and box is None:
        return None
    if mask is not None and mask.is_dir():
        entries = list_folder(mask).entries
        names = {_MASK.sub("", entry.path): entry.path for entry in entries}
        if len(names) == len(entries):
            entries = [entry._replace(path=name) for name, entry in zip(names, entries, strict=True)]
        items = arrange(entries, 0.0, 0).items  # in the order in which images are packed
        files = [names.get(item, item) for item in items]
        keep = torch.cat([torch.ones(0, *size) > 0, *(read_mask(mask / file, None, None, size) for file in files)])
    elif mask is not None and mask.suffix.lower() == ".npy":
        keep = torch.from_numpy(read_array(mask, "mask") == 0)
        keep = keep[None] if keep.ndim == 2 else keep
        keep = keep[:, None] if keep.ndim == 3 else keep
    else:
        keep = read_mask(mask, box, None, size)
    _check_masks(keep, shape, "mask", mask)
    return keep


def targets(folder: Path, spread: bool) -> list[Path]:
    """The files that `save` writes into a folder. UserError where one cannot be written, or would replace others."""
    names = ("results.npy", "mean.npy", "mean.png", "deviation.npy", "deviation.png")[: 5 if spread else 1]
    for name in names:
        sidecar.check(folder / name, suffixes=(".npy", ".png"))
    return [folder / name for name in names]


def save(filled: Filled, model: Model, folder: Path, spread: bool) -> list[Path]:
    """Write results.npy into a folder, with ``spread`` mean and deviation too, and settings; return the files."""
    arrays = {"results": filled.made, "mean": filled.mean, "deviation": filled.deviation}
    mean, above = map(model.data.scale.to_model, (filled.mean, filled.mean + filled.deviation))
    shown = {"mean": mean, "deviation": 2 * (above - mean) - 1}
    files = targets(folder, spread)
    for file in files:
        if file.suffix == ".png":
            write = sidecar.png(grid(model.pixels(shown[file.stem][:64])))
        else:
            write = partial(_write, array=arrays[file.stem].numpy())
        sidecar.save(file, write, "unstir edit inpaint", filled.settings)
    return files


def _write(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array)
