"""Images of 1 to 32 bits per value: how they are scaled, and which of their values are transparent."""

import struct
import zlib

import numpy as np
import pytest
from encoding import encoded, kinds, picture, png
from PIL import Image

from unstir.data.images import Refused, decode


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels, notes = decode(encoded(Image.fromarray(values), kind), f"a.{kind}", None, 1)
    assert np.array_equal(pixels[0], np.round(values / 257))
    assert kinds(notes) == ["16-bit"]


def tiff(values: np.ndarray, photometric: int) -> bytes:
    """A TIFF of grey values as they stand, uint8 or uint16; ``photometric`` 0 says that zero is white, 1 black."""
    (height, width), size = values.shape, values.nbytes
    bits = 8 * values.itemsize
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: size}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, of) for tag, of in tags.items())
    start = b"II*\0" + struct.pack("<I", 8 + size) + values.astype(f"<u{values.itemsize}").tobytes()
    return start + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_in_which_zero_is_white_is_no_negative(channels: int) -> None:
    deep = np.array([[0, 257, 300], [25700, 65000, 65535]], np.uint16)
    grey, notes = decode(tiff(deep, 0), "a.tif", None, channels)  # (65535 - 300) / 257 is 253.8, 535 / 257 is 2.1
    assert grey.tolist() == [[[255, 254, 254], [155, 2, 0]]] * channels and kinds(notes) == ["16-bit"]
    assert decode(tiff(deep, 1), "a.tif", None, 1).pixels.tolist() == [[[0, 1, 1], [100, 253, 255]]]
    plain = np.array([[0, 1, 100, 255]], np.uint8)
    assert decode(tiff(plain, 0), "a.tif", None, 1).pixels.tolist() == [[[255, 254, 155, 0]]]


def transparent(width: int, height: int, bits: int, rows: bytes, *value: int) -> bytes:
    """A PNG of which one grey is transparent, or one colour."""
    key = struct.pack(f">{len(value)}H", *value)
    data = bytearray(png(width, height, (b"tRNS", key), (b"IDAT", zlib.compress(rows))))
    data[24:26] = bytes((bits, 0 if len(value) == 1 else 2))
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize(("bits", "scale"), [(8, 1), (16, 257)])
@pytest.mark.parametrize(("ground", "shown"), [("white", 255), ("black", 0)])
def test_the_transparent_value_of_a_grey_png_is_composited(bits: int, scale: int, ground: str, shown: int) -> None:
    values = np.array([[0, 20, 21], [20, 200, 255]]) * scale
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    data = transparent(3, 2, bits, rows, 20 * scale)
    pixels, notes = decode(data, "a.png", None, 1, ground)
    assert pixels.tolist() == [[[0, shown, 21], [shown, 200, 255]]]
    assert kinds(notes) == ["16-bit"] * (bits == 16) + ["transparency"] and notes[-1].endswith(ground)


def test_a_neighbour_of_the_transparent_value_that_is_the_same_at_8_bits_stays() -> None:
    values = np.array([[5140, 5141, 5139]], ">u2")
    data = transparent(3, 1, 16, b"\0" + values.tobytes(), 5140)
    assert decode(data, "a.png", None, 1).pixels.tolist() == [[[255, 20, 20]]]


@pytest.mark.parametrize(
    ("bits", "packed", "value", "shown"),
    [
        (1, 0b0101_0000, 1, [0, 255, 0, 255]),
        (2, 0b00_01_10_01, 1, [0, 255, 170, 255]),  # 2 of 3 is 170
        (2, 0b00_01_10_01, 5, [0, 255, 170, 255]),  # whose lower two bits are 1
        (4, 0x03E3, 3, [0, 255, 238, 255]),  # 14 of 15 is 238
    ],
)
def test_the_transparent_value_of_few_bits_is_composited(bits: int, packed: int, value: int, shown: list[int]) -> None:
    rows = b"\0" + packed.to_bytes(max(1, bits // 2), "big")
    pixels, notes = decode(transparent(4, 1, bits, rows, value), "a.png", None, 1)
    assert pixels.tolist() == [[shown]] and kinds(notes) == ["transparency"]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_is_composited(bits: int) -> None:
    values = np.array([[19, 23, 27], [19, 23, 28], [27, 23, 19]])
    values = values * 256 + 7 if bits == 16 else values
    data = transparent(3, 1, bits, b"\0" + values.astype(f">u{bits // 8}").tobytes(), *values[0].tolist())
    pixels, notes = decode(data, "a.png", None, 3)
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [19, 23, 28], [27, 23, 19]]
    assert kinds(notes) == ["transparency"]


def test_16_bit_colour_png_is_within_one_level() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = bytearray(png(8, 8, (b"IDAT", zlib.compress(rows))))
    data[24] = 16
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    pixels = decode(bytes(data), "a.png", None, 3).pixels
    assert np.abs(pixels - (values / 257).transpose(2, 0, 1)).max() < 1.001


@pytest.mark.parametrize("mode", ["F", "I"])
def test_float_and_32_bit_tiff_are_refused(mode: str) -> None:
    with pytest.raises(Refused, match=r"fixed range"):
        decode(encoded(picture("L").convert(mode), "TIFF"), "a.tif", None, 1)
