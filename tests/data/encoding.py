"""Image files and archives made in memory, and the options of a packing."""

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from unstir.data.source import Options


def picture(mode="RGB", size=(12, 8)):
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def flat(value=0, size=4):
    """A PNG of one colour, whose red is ``value``."""
    return encoded(Image.new("RGB", (size, size), (value, 2 * value % 256, 3 * value % 256)))


def planes(image):
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def kinds(notes):
    """The first word of each note on an image, which tells its kind."""
    return [note.split()[0] for note in notes]


def png(width, height, *chunks, bits=8, colour=2):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    end = (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in (header, *chunks, end))


def fill(root, files):
    """A folder of files."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def zipped(file, files):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return file


def tarred(file, members, mode="w"):
    """A tar of files, and of members of other kinds."""
    with tarfile.open(file, mode) as archive:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data if isinstance(data, bytes) else bytes(info.size)))
    return file


def options(source, **asked):
    """What `pack` makes of its arguments."""
    plain = dict.fromkeys(("size", "channels", "held_out", "sha256"))
    return Options(**{"source": source, **plain, "download_dir": Path(), "strict": False, "seed": 0, **asked})
