"""Filling in a stack of images, each with a mask of its own: the results, their mean and their deviation, as arrays."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstir.data import pack
from unstir.data.images import Shape
from unstir.data.listing import list_folder, natural
from unstir.edit.edits import filled
from unstir.edit.files import Box, read_mask
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.pictures.grid import grid
from unstir.pixels import from_uint8
from unstir.runs import sidecar
from unstir.runs.files import make_folder, replacing
from unstir.runs.model import Model

ROWS = 8  # images in a picture of results


@dataclass(frozen=True, eq=False)
class Filled:
    """What a stack of N images was filled in with: ``made``, uint8 [N, num, C, H, W].

    ``given`` are the images, uint8 [N, C, H, W], and ``keep`` what was kept of them, bool [N, 1 or C, H, W].
    ``settings`` are all that decides the pixels.
    """

    given: Tensor
    keep: Tensor
    made: Tensor
    settings: dict[str, Any]
    calls: int = 0

    @property
    def mean(self) -> Tensor:
        """The mean over the results of each image: float32 [N, C, H, W]."""
        return self.made.float().mean(1)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation over the results of each image, 0 where it was kept: float32 [N, C, H, W]."""
        return self.made.float().std(1) if self.made.shape[1] > 1 else torch.zeros(self.given.shape)


def inpaint_stack(model: Model, images: Tensor, keep: Tensor, job: Job, *, resamples: int = 3, jump: int = 1) -> Filled:
    """Fill in each of ``images``, uint8 [N, C, H, W], ``job.num`` times, where ``keep`` is False.

    ``keep`` is bool [N or 1, 1 or C, H, W]. ``resamples`` and ``jump`` are as for `inpaint`, whose results are those of
    the first image. Raises UserError for what does not fit the model.
    """
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != model.shape:
        raise UserError("images", list(images.shape), f"must be uint8 [N, {', '.join(map(str, model.shape))}]")
    sizes = {(n, c, *model.shape[1:]) for n in (1, len(images)) for c in (1, model.shape[0])}
    if keep.dtype != torch.bool or tuple(keep.shape) not in sizes:
        raise UserError("keep", list(keep.shape), f"must be bool [N or 1, 1 or C, H, W] of {list(images.shape)}")
    keep = keep.expand(len(images), -1, -1, -1)
    editing, made = filled(model, from_uint8(images), keep, job, resamples, jump)
    hashes = {
        name: hashlib.sha256(it.contiguous().numpy().data).hexdigest()
        for name, it in (("images", images), ("keep", keep))
    }
    options: dict[str, Any] = {**hashes, "resamples": resamples, "jump": jump}
    edited = editing.done("inpaint", {}, images, made, (), **options)
    return Filled(images, keep, made.view(len(images), job.num, *model.shape), edited.settings, edited.calls)


def read_stack(path: Path, shape: Shape) -> Tensor:
    """The images of a folder or a NumPy file as the run's data would hold them: uint8 [N, C, H, W]."""
    with tempfile.TemporaryDirectory() as folder:
        size = shape[1] if shape[1] == shape[2] else None
        store = pack(path, Path(folder) / "images", size=size, channels=shape[0], held_out=0.0)
        if store.shape != shape or store.refused:
            why = f"{store.refused[0][0]} {store.refused[0][1]}" if store.refused else f"images of {list(store.shape)}"
            raise UserError("image", path, f"has {why}; the run's are {list(shape)}")
        return torch.cat([store.images(split) for split in ("train", "held_out")])


def read_masks(mask: Path | None, box: Box | None, count: int, shape: Shape) -> Tensor:
    """What to keep of ``count`` images, bool [count or 1, 1 or C, H, W]: all but the ``box`` or what a mask says.

    That is a picture for all, as `read_mask` takes it, a folder with one for each in their order, or a NumPy array
    [H, W], [N, H, W] or [N, 1 or C, H, W] that is not 0 where an image is to be filled in.
    """
    if mask is not None and mask.is_dir():
        files = sorted((entry.path for entry in list_folder(mask).entries), key=natural)
        keep = torch.cat(
            [read_mask(mask / file, None, None, shape) for file in files] or [torch.ones(0, 1, *shape[1:])]
        )
    elif mask is not None and mask.suffix == ".npy":
        holes = torch.from_numpy(np.load(mask, allow_pickle=False) != 0)
        keep = ~{2: lambda: holes[None, None], 3: lambda: holes[:, None]}.get(holes.ndim, lambda: holes)()
    else:
        keep = read_mask(mask, box, None, shape)
    if (
        keep.ndim != 4
        or len(keep) not in (1, count)
        or keep.shape[1] not in (1, shape[0])
        or keep.shape[2:] != shape[1:]
    ):
        raise UserError("mask", mask, f"has masks of {list(keep.shape)}, and the images are {[count, *shape]}")
    return keep


def check(folder: Path, spread: bool) -> None:
    """Raise UserError where `save` cannot write into a folder, or would replace what is no edit's."""
    for name in ("results", "mean", "deviation")[: 3 if spread else 1]:
        sidecar.check(folder / f"{name}.png")
        if (folder / f"{name}.npy").exists() and not (folder / f"{name}.json").exists():
            raise UserError(
                "out", folder / f"{name}.npy", "is there and has no settings of unstir", "name another folder"
            )


def save(filled: Filled, folder: Path, spread: bool) -> list[Path]:
    """Write results.npy and results.png into a folder, with ``spread`` mean and deviation too, and their settings.

    Returns the arrays. The picture has a row for each of the first images: what is given, what is to fill in, and
    results. The picture of the deviation is twice as bright.
    """
    make_folder(folder)
    arrays = {"results": filled.made}
    holes = filled.given.where(filled.keep, 128)
    rows = torch.cat((filled.given[:, None], holes[:, None], filled.made), 1)[:ROWS]
    pictures = {"results": grid(rows.flatten(0, 1), rows.shape[1])}
    if spread:
        arrays |= {"mean": filled.mean, "deviation": filled.deviation}
        for name, pixels in (("mean", filled.mean), ("deviation", 2 * filled.deviation)):
            pictures[name] = grid(pixels.round().clamp(0, 255).byte()[: ROWS**2], ROWS)
    for name, array in arrays.items():
        with replacing(folder / f"{name}.npy") as partial, partial.open("wb") as file:
            np.save(file, array.numpy())
    for name, picture in pictures.items():
        sidecar.save(folder / f"{name}.png", sidecar.png(picture), "unstir edit inpaint", filled.settings)
    return [folder / f"{name}.npy" for name in arrays]
