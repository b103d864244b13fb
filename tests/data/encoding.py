"""Image files made in memory, and the options of a packing."""

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from unstir.data.source import Options


def picture(mode: str = "RGB", size: tuple[int, int] = (12, 8)) -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def planes(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def kinds(notes: Iterable[str]) -> list[str]:
    """The first word of each note on an image, which tells its kind."""
    return [note.split()[0] for note in notes]


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    end = (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in (header, *chunks, end))


def options(source: object, **asked: object) -> Options:
    """What `pack` makes of its arguments."""
    plain = dict.fromkeys(("size", "channels", "held_out", "sha256"))
    return Options(**{"source": source, **plain, "download_dir": None, "strict": False, "seed": 0, **asked})
