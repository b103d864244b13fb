"""PNG files of single images: read back, and told whole from broken by their ends."""

import os
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_END = b"\0\0\0\0IEND\xaeB`\x82"


def read(path: Path) -> Tensor:
    """The image in a file, uint8 [C, H, W]. Raises OSError where there is none."""
    with Image.open(path) as picture:
        array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def is_whole(path: Path, shape: tuple[int, int, int]) -> bool:
    """Whether a file begins as a PNG of 8-bit images of ``shape`` (C, H, W) does and ends as one; no more is read."""
    channels, height, width = shape
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", width, height, 8, 0 if channels == 1 else 2)
    try:
        with path.open("rb", buffering=0) as file:
            if file.read(len(head)) != head:
                return False
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False
