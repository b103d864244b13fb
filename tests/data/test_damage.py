"""A damaged picture is refused with a reason in words of our own; none is packed with other pixels than it had."""

import re
import struct
import zlib

import encoding
import numpy as np
import pytest
from PIL import Image

from unstir.data.images import Refused, decode


def encoded(kind, **options):
    return encoding.encoded(picture(), kind, **options)


def picture():
    colours = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((12, 10), Image.Resampling.BICUBIC)


def chunks(png):
    """The (name, start, stop) of each chunk, length and checksum included."""
    at = 8
    while at < len(png):
        stop = at + 12 + struct.unpack(">I", png[at : at + 4])[0]
        yield png[at + 4 : at + 8], at, stop
        at = stop


def exif_behind_the_pixels(png):
    """The PNG with a turned EXIF chunk between its last IDAT and IEND, where some cameras write it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:-12] + chunk + png[-12:]


@pytest.mark.parametrize("make", [lambda png: png, exif_behind_the_pixels], ids=["plain", "exif"])
def test_every_flipped_bit_in_the_pixels_of_a_png_is_refused(make):
    png = make(encoded("PNG"))
    spans = [(start, stop) for name, start, stop in chunks(png) if name == b"IDAT"]
    flips = [8 * at + bit for start, stop in spans for at in range(start, stop) for bit in range(8)]
    assert len(flips) > 2000
    for flip in flips:
        damaged = bytearray(png)
        damaged[flip // 8] ^= 1 << flip % 8
        with pytest.raises(Refused, match="^damaged: "):
            decode(bytes(damaged), "a.png", None, 3)


def test_exif_behind_the_pixels_is_applied():
    pixels, notes = decode(exif_behind_the_pixels(encoded("PNG")), "a.png", None, 3)
    assert np.array_equal(pixels, np.asarray(picture().transpose(Image.Transpose.ROTATE_270)).transpose(2, 0, 1))
    assert [note.split()[0] for note in notes] == ["EXIF"]


FORMATS = [
    *((kind, {}) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")),
    ("JPEG", {"progressive": True}),
    ("WEBP", {"lossless": True}),
    *(("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
]


@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=lambda value: "-".join(value) if value else "")
def test_cut_anywhere_a_picture_is_refused_or_whole(kind, options):
    data = encoded(kind, **options)
    whole = decode(data, "a", None, 3).pixels
    for length in range(1, len(data)):
        try:
            pixels = decode(data[:length], "a", None, 3).pixels
        except Refused as refusal:
            assert re.fullmatch(r"damaged: [^<>]+|not an image.*|0x0 .*|.* pixels", str(refusal))
        else:
            assert np.array_equal(pixels, whole) and length > len(data) - 16


def test_want_of_memory_is_not_taken_for_damage(monkeypatch):
    def starved(self):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", starved)
    with pytest.raises(MemoryError):
        decode(encoded("BMP"), "a.bmp", None, 3)
