"""The images of a job as one array, images.npy, in units of the data: whole after a kill at any time.

Each batch is a file of its own, named by its first image and its weights, until all are there; then they become one.
An array has no place for the hash of its weights: settings.json has it, and the SHA-256 of the array.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unstir.data.disk import file_sha256
from unstir.generate.drawing import Job
from unstir.runs.files import replacing, writing
from unstir.runs.model import Model

ARRAY = "images.npy"


def opened(file: Path) -> NDArray[np.generic] | None:
    """The array in a file, mapped into memory; None where there is none that is whole."""
    try:
        array: NDArray[np.generic] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array


def save(out: Path, begin: int, images: Tensor, partial: Path, model: Model) -> None:
    """Write the batch that begins at an image's number, through the folder ``partial``."""
    file = _batch(out, begin, model)
    with writing(file):
        np.save(partial / file.name, images.numpy())
        (partial / file.name).replace(file)


def batches(out: Path, job: Job, model: Model) -> dict[range, NDArray[np.generic] | None]:
    """The batches of a job, by the numbers of their images; None for one that is not there as a file."""
    parts = dict[range, NDArray[np.generic] | None]()
    for begin in range(0, job.num, job.batch_size):
        part, array = range(begin, min(begin + job.batch_size, job.num)), opened(_batch(out, begin, model))
        parts[part] = array if array is not None and array.shape == (len(part), *model.shape) else None
    return parts


def join(out: Path, job: Job, model: Model, old: NDArray[np.generic] | None) -> str:
    """Make one array of all batches, and of the images of an ``old`` one; its SHA-256, in hex."""
    with replacing(out / ARRAY) as partial:
        with partial.open("wb") as file:
            dtype = np.dtype(np.float32 if model.data.scale.is_float else np.uint8)
            header = {"descr": dtype.str, "fortran_order": False, "shape": (job.num, *model.shape)}
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call, unused-ignore]
            for part, array in batches(out, job, model).items():
                rows = old[part.start : part.stop] if array is None and old is not None else array
                file.write(np.ascontiguousarray(rows).data)
        return file_sha256(partial)


def forget_batches(out: Path) -> None:
    """Remove the files of batches that are joined, or of a job whose settings are gone."""
    for file in out.glob(".batch-*.npy"):
        file.unlink()


def _batch(out: Path, begin: int, model: Model) -> Path:
    return out / f".batch-{begin:06d}-{model.hashes.replace(' ', '-')}.npy"
