"""The zoo: every kind of image file met in practice, and what becomes of it."""

import io
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
def test_each_allowed_format_decodes_as_pillow_does(kind: str) -> None:
    data = encoded(picture(), kind, **({"lossless": True} if kind == "WEBP" else {}))
    pixels, notes = decode(data, f"a.{kind.lower()}", None, 3)
    assert notes == ()
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert np.array_equal(pixels, planes(Image.open(io.BytesIO(data))))
    assert signature(data[:16]) == kind


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(compression: str) -> None:
    data = encoded(picture(), "TIFF", compression=compression)
    assert np.array_equal(decode(data, "a.tif", None, 3).pixels, planes(picture()))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_palette_and_one_bit_in_colour_and_grey(mode: str) -> None:
    image = picture(mode)
    colour = decode(encoded(image), "a.png", None, 3).pixels
    assert np.array_equal(colour, planes(image))
    grey = decode(encoded(image), "a.png", None, 1).pixels
    assert np.array_equal(grey[0], np.asarray(image.convert("RGB").convert("L")))


def test_cmyk_is_converted_and_noted() -> None:
    data = encoded(picture("CMYK"), "JPEG", quality=100, subsampling=0)
    pixels, notes = decode(data, "a.jpg", None, 3)
    assert kinds(notes) == ["CMYK"]
    assert np.array_equal(pixels, planes(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    image = picture().convert(mode)
    alpha = np.arange(96, dtype=np.uint8).reshape(8, 12) * 2
    image.putalpha(Image.fromarray(alpha))
    pixels, notes = decode(encoded(image), "a.png", None, 3)
    a = alpha[None] / 255
    expected = planes(image.convert("RGBA").convert("RGB")) * a + 255 * (1 - a)
    assert np.abs(pixels - expected).max() <= 1
    assert kinds(notes) == ["transparency"]


def test_opaque_alpha_is_not_worth_a_note() -> None:
    image = picture("RGBA")
    pixels, notes = decode(encoded(image), "a.png", None, 3)
    assert notes == () and np.array_equal(pixels, planes(image))


def test_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    pixels, notes = decode(encoded(image, transparency=0), "a.png", None, 3)
    assert pixels[:, 0, 0].tolist() == [255, 255, 255] and pixels[:, 1, 1].tolist() == [10, 20, 30]
    assert kinds(notes) == ["transparency"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = Image.new("L", (24, 16), 0)
    upright.paste(255, (0, 0, 12, 8))  # a white upper left quarter
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each
    stored = upright.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, notes = decode(encoded(stored.convert("RGB"), kind, exif=exif), f"a.{kind}", None, 1)
    assert np.abs(pixels[0].astype(int) - np.asarray(upright)).mean() < 3
    assert ("EXIF" in kinds(notes)) == (orientation > 1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    pixels, notes = decode(data, f"a.{kind}", None, 3)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert kinds(notes) == ["first"]


def test_content_decides_and_not_the_extension() -> None:
    pixels, notes = decode(encoded(picture()), "photo.jpg", None, 3)
    assert np.array_equal(pixels, planes(picture()))
    assert kinds(notes) == ["decoded"]


def test_colour_profile_other_than_srgb_is_noted() -> None:
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(encoded(picture(), icc_profile=srgb), "a.png", None, 3).notes == ()
    other = decode(encoded(picture(), icc_profile=b"Display P3" * 20), "a.png", None, 3)
    assert kinds(other.notes) == ["colour"]


@pytest.mark.parametrize(
    "data", [b"", b"hello, I am text", b"%PDF-1.7", b"SIMPLE  =  T", b"\x1f\x8b\x08\0", b"P6 1 1 255\n"]
)
def test_what_is_no_allowed_image_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match=r"empty|format"):
        decode(data, "a.png", None, 3)


def bombs() -> list[tuple[str, bytes]]:
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
def test_bomb_is_refused_at_once_and_takes_no_memory(name: str, data: bytes) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    sized = name in ("png", "png just above", "webp", "bmp", "gif")
    with pytest.raises(Refused, match=f"{'16384x16384 is ' * (name == 'webp')}more than 67,108,864" if sized else None):
        decode(data, "a.png", 32, 3)
    assert time.monotonic() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_larger_image_gives_its_centre_square_antialiased() -> None:
    wide = Image.new("RGB", (128, 64), "black")
    wide.paste((255, 255, 255), (32, 0, 96, 64))
    pixels = decode(encoded(wide), "a.png", 16, 3).pixels
    assert np.array_equal(pixels, planes(wide.resize((32, 16), Image.Resampling.LANCZOS).crop((8, 0, 24, 16))))
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    grey = decode(encoded(stripes), "a.png", 16, 1).pixels
    assert grey[:, 2:-2, 2:-2].min() > 100 and grey[:, 2:-2, 2:-2].max() < 155


def test_image_of_the_asked_size_is_untouched() -> None:
    square = picture(size=(16, 16))
    assert np.array_equal(decode(encoded(square), "a.png", 16, 3).pixels, planes(square))


def test_small_images_are_enlarged_with_a_note_or_refused() -> None:
    assert kinds(decode(encoded(picture(size=(16, 30))), "a.png", 32, 3).notes) == ["enlarged,"]
    for size in ((15, 40), (1, 1)):
        with pytest.raises(Refused, match=f"too small: {size[0]}x{size[1]}.*at least 16"):
            decode(encoded(picture(size=size)), "a.png", 32, 3)


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
