"""PNG files of single images: read back, and found whole or broken by their checksums."""

import io
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unstir.errors import UserError

_END = b"\0\0\0\0IEND\xaeB`\x82"


def read(path: Path) -> Tensor:
    """The image in a file, uint8 [C, H, W]. Raises OSError where there is none."""
    with Image.open(path) as picture:
        array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    """Whether a file is a PNG of an 8-bit image of ``shape`` (C, H, W), every chunk with its checksum to the end.

    The pixels are not decoded: whatever changes them changes a checksum, of 32 bits.
    """
    channels, height, width = shape
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", width, height, 8, 0 if channels == 1 else 2)
    try:
        data = path.read_bytes()
        if not (data.startswith(head) and data.endswith(_END)):
            return False
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.verify()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def check_png(path: Path, option: str) -> None:
    """Raise UserError where a file is no PNG in a folder that exists."""
    if path.suffix.lower() != ".png" or path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option} {path} would be a PNG in a folder that exists; name a file that ends in .png")
