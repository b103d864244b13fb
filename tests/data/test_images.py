"""The zoo: every kind of image file met in practice, its depth, its damage, and what becomes of it."""

import io
import re
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from encoding import encoded, kinds, picture, planes, png
from PIL import Image

from unstir.data.images import COLOUR_LOST, MAX_PIXELS, Refused, decode, signature


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_each_allowed_format_decodes_as_pillow_does(kind):
    data = encoded(picture(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    pixels, notes = decode(data, f"a.{kind.lower()}", None, 3)
    assert notes == ()
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert np.array_equal(pixels, planes(Image.open(io.BytesIO(data))))
    assert signature(data[:16]) == kind


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(compression):
    data = encoded(picture(), "TIFF", compression=compression)
    assert np.array_equal(decode(data, "a.tif", None, 3).pixels, planes(picture()))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_palette_and_one_bit_in_colour_and_grey(mode):
    image = picture(mode)
    colour = decode(encoded(image), "a.png", None, 3).pixels
    assert np.array_equal(colour, planes(image))
    grey = decode(encoded(image), "a.png", None, 1).pixels
    assert np.array_equal(grey[0], np.asarray(image.convert("RGB").convert("L")))


def test_cmyk_is_converted_and_noted():
    data = encoded(picture("CMYK"), "JPEG", quality=100, subsampling=0)
    pixels, notes = decode(data, "a.jpg", None, 3)
    assert kinds(notes) == ["CMYK"]
    assert np.array_equal(pixels, planes(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode):
    image = picture().convert(mode)
    alpha = np.arange(96, dtype=np.uint8).reshape(8, 12) * 2
    image.putalpha(Image.fromarray(alpha))
    pixels, notes = decode(encoded(image), "a.png", None, 3)
    a = alpha[None] / 255
    expected = planes(image.convert("RGBA").convert("RGB")) * a + 255 * (1 - a)
    assert np.abs(pixels - expected).max() <= 1
    assert kinds(notes) == ["transparency"]


def test_opaque_alpha_is_not_worth_a_note():
    image = picture("RGBA")
    pixels, notes = decode(encoded(image), "a.png", None, 3)
    assert notes == () and np.array_equal(pixels, planes(image))


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    pixels, notes = decode(encoded(image, transparency=0), "a.png", None, 3)
    assert pixels[:, 0, 0].tolist() == [255, 255, 255] and pixels[:, 1, 1].tolist() == [10, 20, 30]
    assert kinds(notes) == ["transparency"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    upright = Image.new("L", (24, 16), 0)
    upright.paste(255, (0, 0, 12, 8))  # a white upper left quarter
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each
    stored = upright.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, notes = decode(encoded(stored.convert("RGB"), kind, exif=exif), f"a.{kind}", None, 1)
    assert np.abs(pixels[0].astype(int) - np.asarray(upright)).mean() < 3
    assert ("EXIF" in kinds(notes)) == (orientation > 1)
    floats = decode(encoded(stored.convert("RGB"), kind, exif=exif), f"a.{kind}", None, 0, is_float=True).pixels
    assert np.abs(floats.mean(0) - np.asarray(upright)).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(kind):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    pixels, notes = decode(data, f"a.{kind}", None, 3)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert kinds(notes) == ["first"]


def test_content_decides_and_not_the_extension():
    pixels, notes = decode(encoded(picture()), "photo.jpg", None, 3)
    assert np.array_equal(pixels, planes(picture()))
    assert kinds(notes) == ["decoded"]


def test_colour_profile_other_than_srgb_is_noted():
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(encoded(picture(), icc_profile=srgb), "a.png", None, 3).notes == ()
    other = decode(encoded(picture(), icc_profile=b"Display P3" * 20), "a.png", None, 3)
    assert kinds(other.notes) == ["colour"]


@pytest.mark.parametrize(
    "data", [b"", b"hello, I am text", b"%PDF-1.7", b"SIMPLE  =  T", b"\x1f\x8b\x08\0", b"P6 1 1 255\n"]
)
def test_what_is_no_allowed_image_is_refused(data):
    with pytest.raises(Refused, match=r"empty|format"):
        decode(data, "a.png", None, 3)


def bombs():
    webp = bytearray(encoded(picture(), "WEBP", lossless=True, exif=b"Exif\0\0xx"))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = b"\xff\x3f\0\xff\x3f\0"  # 16384 x 16384
    bmp = bytearray(encoded(picture(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 50_000, 50_000)
    gif = bytearray(encoded(picture(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    text = zlib.compress(b"\0" * (200 << 20))
    return [
        ("png", png(50_000, 50_000, (b"IDAT", zlib.compress(b"\0" * 1000)))),
        ("png just above", png(MAX_PIXELS // 4096 + 1, 4096, (b"IDAT", b""))),
        ("text chunk", png(8, 8, (b"zTXt", b"Comment\0\0" + text), (b"IDAT", b""))),
        ("profile", png(8, 8, (b"iCCP", b"x\0\0" + text), (b"IDAT", b""))),
        ("webp", bytes(webp)),
        ("bmp", bytes(bmp)),
        ("gif", bytes(gif)),
        ("fits", b"SIMPLE  =                    T"),
    ]


@pytest.mark.parametrize(("name", "data"), bombs(), ids=[name for name, _ in bombs()])
def test_bomb_is_refused_at_once_and_takes_no_memory(name, data):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    sized = name in ("png", "png just above", "webp", "bmp", "gif")
    with pytest.raises(Refused, match=f"{'16384x16384 is ' * (name == 'webp')}more than 67,108,864" if sized else None):
        decode(data, "a.png", (32, 32), 3)
    assert time.monotonic() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_larger_image_gives_its_centre_square_antialiased():
    wide = Image.new("RGB", (128, 64), "black")
    wide.paste((255, 255, 255), (32, 0, 96, 64))
    pixels = decode(encoded(wide), "a.png", (16, 16), 3).pixels
    assert np.array_equal(pixels, planes(wide.resize((32, 16), Image.Resampling.LANCZOS).crop((8, 0, 24, 16))))
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    grey = decode(encoded(stripes), "a.png", (16, 16), 1).pixels
    assert grey[:, 2:-2, 2:-2].min() > 100 and grey[:, 2:-2, 2:-2].max() < 155


def test_image_of_the_asked_size_is_untouched():
    square = picture(size=(16, 16))
    assert np.array_equal(decode(encoded(square), "a.png", (16, 16), 3).pixels, planes(square))


def test_small_images_are_enlarged_with_a_note_or_refused():
    assert kinds(decode(encoded(picture(size=(16, 30))), "a.png", (32, 32), 3).notes) == ["enlarged,"]
    for size in ((15, 40), (1, 1)):
        with pytest.raises(Refused, match=f"too small: {size[1]}x{size[0]}.*at least 16"):
            decode(encoded(picture(size=size)), "a.png", (32, 32), 3)


def test_colour_that_becomes_grey_is_noted_and_what_was_grey_is_not():
    def notes(pixels, channels, format, **options):
        return decode(encoded(Image.fromarray(pixels), format, **options), f"a.{format.lower()}", None, channels).notes

    draw = np.random.default_rng(0)
    grey = np.repeat(draw.integers(0, 256, (32, 32, 1), np.uint8), 3, axis=2)
    coloured = grey.copy()
    coloured[5, 5] = (200, 100, 100)
    for kind in ({"format": "PNG"}, {"format": "JPEG", "quality": 40}):
        assert notes(grey, 1, **kind) == () and notes(grey[:, :, 0], 1, **kind) == ()
    assert notes(coloured, 1, format="PNG") == (COLOUR_LOST,) and notes(coloured, 3, format="PNG") == ()
    photo = draw.integers(0, 256, (32, 32, 3), np.uint8)
    assert notes(photo, 1, format="JPEG", quality=90) == (COLOUR_LOST,)


def test_channels_may_differ_by_sixteen_in_what_is_grey():
    for most, notes in ((16, ()), (17, (COLOUR_LOST,))):
        pixels = np.full((4, 4, 3), 100, np.uint8)
        pixels[1, 2, 1] += most
        assert decode(encoded(Image.fromarray(pixels)), "a.png", None, 1).notes == notes


def test_broken_metadata_does_not_spoil_an_image():
    pixels, notes = decode(encoded(picture(), exif=b"Exif\0\0broken"), "a.png", None, 3)
    assert np.array_equal(pixels, planes(picture())) and kinds(notes) == ["unreadable"]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels, notes = decode(encoded(Image.fromarray(values), kind), f"a.{kind}", None, 1)
    assert np.array_equal(pixels[0], np.round(values / 257))
    assert len(notes) == 1 and "64 of 64" in notes[0]
    camera = np.arange(3700, dtype=np.uint16).reshape(37, 100)  # 12 bits of 16
    assert "15 of 3,700" in decode(encoded(Image.fromarray(camera), kind), "a", None, 1).notes[-1]


def tiff(values, photometric):
    """A TIFF of grey values as they stand, uint8 or uint16; ``photometric`` 0 says that zero is white, 1 black."""
    (height, width), size = values.shape, values.nbytes
    bits = 8 * values.itemsize
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: size}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, of) for tag, of in tags.items())
    start = b"II*\0" + struct.pack("<I", 8 + size) + values.astype(f"<u{values.itemsize}").tobytes()
    return start + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_in_which_zero_is_white_is_no_negative(channels):
    deep = np.array([[0, 257, 300], [25700, 65000, 65535]], np.uint16)
    grey, notes = decode(tiff(deep, 0), "a.tif", None, channels)  # (65535 - 300) / 257 is 253.8, 535 / 257 is 2.1
    assert grey.tolist() == [[[255, 254, 254], [155, 2, 0]]] * channels and kinds(notes) == ["16-bit"]
    assert decode(tiff(deep, 1), "a.tif", None, 1).pixels.tolist() == [[[0, 1, 1], [100, 253, 255]]]
    plain = np.array([[0, 1, 100, 255]], np.uint8)
    assert decode(tiff(plain, 0), "a.tif", None, 1).pixels.tolist() == [[[255, 254, 155, 0]]]


def transparent(width, height, bits, rows, *value):
    """A PNG of which one grey is transparent, or one colour."""
    key = struct.pack(f">{len(value)}H", *value)
    data = bytearray(png(width, height, (b"tRNS", key), (b"IDAT", zlib.compress(rows))))
    data[24:26] = bytes((bits, 0 if len(value) == 1 else 2))
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize(("bits", "scale"), [(8, 1), (16, 257)])
@pytest.mark.parametrize(("ground", "shown"), [("white", 255), ("black", 0)])
def test_the_transparent_value_of_a_grey_png_is_composited(bits, scale, ground, shown):
    values = np.array([[0, 20, 21], [20, 200, 255]]) * scale
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    data = transparent(3, 2, bits, rows, 20 * scale)
    pixels, notes = decode(data, "a.png", None, 1, ground)
    assert pixels.tolist() == [[[0, shown, 21], [shown, 200, 255]]]
    assert kinds(notes) == ["16-bit"] * (bits == 16) + ["transparency"] and notes[-1].endswith(ground)


def test_a_neighbour_of_the_transparent_value_that_is_the_same_at_8_bits_stays():
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
def test_the_transparent_value_of_few_bits_is_composited(bits, packed, value, shown):
    rows = b"\0" + packed.to_bytes(max(1, bits // 2), "big")
    pixels, notes = decode(transparent(4, 1, bits, rows, value), "a.png", None, 1)
    assert pixels.tolist() == [[shown]] and kinds(notes) == ["transparency"]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_is_composited(bits):
    values = np.array([[19, 23, 27], [19, 23, 28], [27, 23, 19]])
    values = values * 256 + 7 if bits == 16 else values
    data = transparent(3, 1, bits, b"\0" + values.astype(f">u{bits // 8}").tobytes(), *values[0].tolist())
    pixels, notes = decode(data, "a.png", None, 3)
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [19, 23, 28], [27, 23, 19]]
    assert kinds(notes) == ["16-bit"] * (bits == 16) + ["transparency"]


def test_16_bit_colour_png_is_within_one_level():
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = bytearray(png(8, 8, (b"IDAT", zlib.compress(rows))))
    data[24] = 16
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    pixels, notes = decode(bytes(data), "a.png", None, 3)
    assert kinds(notes) == ["16-bit"]
    assert np.abs(pixels - (values / 257).transpose(2, 0, 1)).max() < 1.001


@pytest.mark.parametrize("mode", ["F", "I"])
def test_float_and_32_bit_tiff_are_refused(mode):
    with pytest.raises(Refused, match=r"fixed range"):
        decode(encoded(picture("L").convert(mode), "TIFF"), "a.tif", None, 1)


def saved(kind, **options):
    return encoded(blurred(), kind, **options)


def blurred():
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
    png = make(saved("PNG"))
    spans = [(start, stop) for name, start, stop in chunks(png) if name == b"IDAT"]
    flips = [8 * at + bit for start, stop in spans for at in range(start, stop) for bit in range(8)]
    assert len(flips) > 2000
    for flip in flips:
        damaged = bytearray(png)
        damaged[flip // 8] ^= 1 << flip % 8
        with pytest.raises(Refused, match="^damaged: "):
            decode(bytes(damaged), "a.png", None, 3)


def test_exif_behind_the_pixels_is_applied():
    pixels, notes = decode(exif_behind_the_pixels(saved("PNG")), "a.png", None, 3)
    assert np.array_equal(pixels, np.asarray(blurred().transpose(Image.Transpose.ROTATE_270)).transpose(2, 0, 1))
    assert [note.split()[0] for note in notes] == ["EXIF"]


FORMATS = [
    *((kind, {}) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")),
    ("JPEG", {"progressive": True}),
    ("WEBP", {"lossless": True}),
    *(("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
]


@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=lambda value: "-".join(value) if value else "")
def test_cut_anywhere_a_picture_is_refused_or_whole(kind, options):
    data = saved(kind, **options)
    whole = decode(data, "a", None, 3).pixels
    for length in range(1, len(data)):
        try:
            pixels = decode(data[:length], "a", None, 3).pixels
        except Refused as refusal:
            assert re.fullmatch(r"damaged: [^<>]+|not an image.*|0x0 .*|.* pixels", str(refusal))
        else:
            assert np.array_equal(pixels, whole) and length > len(data) - 16


def test_want_of_memory_is_not_taken_for_damage(watched):
    watched(Image.Image, "load", MemoryError())
    with pytest.raises(MemoryError):
        decode(saved("BMP"), "a.bmp", None, 3)
