"""The images of a job as one array, images.npy, in units of the data: whole after a kill at any time.

Each batch is a file of its own, .batch-000064.npy, until all are there; then they become one.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.runs.files import replacing, writing
from unstir.runs.model import Model

ARRAY = "images.npy"


def read(out: Path, num: int | None = None) -> Tensor:
    """The first ``num`` images, all by default: uint8 or float32 [num, C, H, W]. Raises OSError without them."""
    return torch.from_numpy(np.load(out / ARRAY, mmap_mode="r")[:num].copy())


def count(out: Path) -> int:
    """How many images the array has; 0 where there is none that is whole."""
    return len(array) if (array := _opened(out / ARRAY)) is not None else 0


def save(out: Path, begin: int, images: Tensor, partial: Path) -> None:
    """Write the batch that begins at an image's number, by way of the folder ``partial``."""
    file = _batch(out, begin)
    with writing(file):
        np.save(partial / file.name, images.numpy())
        (partial / file.name).replace(file)


def missing(out: Path, job: Job, model: Model) -> list[int]:
    """Where the batches begin of which an image is missing. Raises UserError where there are more than asked for."""
    if (kept := count(out)) > job.num:
        more = {"num": kept}, "name another folder"
        raise UserError("num", job.num, f"is less than {out} holds, {kept} of these images", more)
    sizes = {begin: min(job.batch_size, job.num - begin) for begin in range(0, job.num, job.batch_size)}
    shapes = {begin: (size, *model.shape) for begin, size in sizes.items() if begin + size > kept}
    return [begin for begin, shape in shapes.items() if getattr(_opened(_batch(out, begin)), "shape", None) != shape]


def join(out: Path, job: Job, model: Model) -> None:
    """Make one array of all batches, and of the images that one had already."""
    parts = {begin: _opened(_batch(out, begin)) for begin in range(0, job.num, job.batch_size)}
    old, dtype = _opened(out / ARRAY), np.float32 if model.data.scale.is_float else np.uint8
    if old is None or len(old) < job.num:
        with replacing(out / ARRAY) as partial, partial.open("wb") as file:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (job.num, *model.shape)}
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call, unused-ignore]
            for begin, part in parts.items():
                rows = part if part is not None or old is None else old[begin : begin + job.batch_size]
                file.write(np.ascontiguousarray(rows).data)
    for begin in parts:
        _batch(out, begin).unlink(missing_ok=True)


def _batch(out: Path, begin: int) -> Path:
    return out / f".batch-{begin:06d}.npy"


def _opened(file: Path) -> NDArray[np.generic] | None:
    try:
        array: NDArray[np.generic] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array
