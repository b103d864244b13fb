"""One image file's bytes to one array, or a reason why not: uint8, or float32 where more than 8 bits are kept.

docs/data.md ("Image files") says what is done with each kind of file.
"""

import hashlib
import io
import struct
import warnings
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor

from unstir.progress import sized

Shape = tuple[int, int, int]  # (C, H, W) of an image
Sides = tuple[int, int]  # (H, W) of an image
MAX_PIXELS = 1 << 26  # largest image decoded; below the 89,478,485 at which Pillow itself begins to warn
MAX_FILE_BYTES = 1 << 26  # largest image file read
MOST_CHANNELS = 64

EXTENSIONS = {
    ".png": "PNG", ".apng": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
"""The allowed format each extension promises."""

FOREIGN = frozenset((
    ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".tga", ".exr", ".hdr", ".ppm", ".pgm", ".pbm",
    ".pnm", ".ico", ".dng", ".cr2", ".nef", ".arw", ".fits", ".dds",
))  # fmt: skip
"""Extensions of images that cannot be packed: such files are refused, not ignored."""

UNREADABLE = "cannot be read"  # begins the reason to refuse a file that may be sound
OTHER_SHAPE = "of another shape:"  # the same, where no size is given

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
)  # fmt: skip

_TURNS = Image.Transpose
_ORIENT = {
    2: _TURNS.FLIP_LEFT_RIGHT, 3: _TURNS.ROTATE_180, 4: _TURNS.FLIP_TOP_BOTTOM, 5: _TURNS.TRANSPOSE,
    6: _TURNS.ROTATE_270, 7: _TURNS.TRANSVERSE, 8: _TURNS.ROTATE_90,
}  # fmt: skip
COLOUR_LOST = "colour made grey; 3 channels would keep it"
LEFT_OUT = "left out"  # begins notes on images that are not packed
UNLABELLED = "packed without a label"  # and of those whose folder gives them none
NOT_A_CLASS = f"{UNLABELLED}: what it has in its place is neither a whole number nor a text"
FURTHER_COLUMN = f"{LEFT_OUT}: a column that is neither the images nor their labels"
_GREY_ENOUGH = 16  # greatest difference between the channels of a grey image, as JPEGs leave it
_CUT = "more than 8 bits a channel, of which 8 can be read; give arrays"


class Refused(Exception):  # noqa: N818  (an outcome, not a failure)
    """This file is not packed; the message says why."""


class Decoded(NamedTuple):
    """One image, [C, H, W], uint8 0..255 or float32, and what was done to it out of the ordinary."""

    pixels: NDArray[Any]
    notes: tuple[str, ...]


def signature(start: bytes) -> str | None:
    """Name the allowed format whose signature these first bytes (16 suffice) carry, else None."""
    for magic, name in _SIGNATURES:
        if start.startswith(magic):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if start[:2] == b"BM" and start[6:10] == b"\0\0\0\0" else None


def decode(
    data: bytes, name: str | None, size: Sides | None, channels: int, ground: str = "white", is_float: bool = False
) -> Decoded:
    """Decode an image file's bytes to uint8 [channels, H, W], (H, W) = size when size is given.

    The extension of `name` is compared with the content (None: it has none); what is transparent lies on a `ground`,
    "white" or "black". Of other numbers of channels than 1 and 3, and as ``is_float``, float32 as stored, each page is
    a channel; 0 channels are as many as there are. Raises Refused.
    """
    if not data:
        raise Refused("empty file")
    if (kind := signature(data[:16])) is None:
        raise Refused("not an image of an allowed format (PNG, JPEG, WebP, BMP, GIF, TIFF)")
    notes: list[str] = []
    if name is not None and EXTENSIONS.get(PurePosixPath(name).suffix.lower()) != kind:
        notes.append("decoded by content, the extension is not the format's")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked below, damage raises
            if is_float or channels not in (1, 3):
                return from_planes(_planes(data, kind, notes), size, channels, is_float, notes)
            image = fit(_load(data, kind, notes, ground), size, notes)
    except (Refused, MemoryError):  # want of memory says nothing about the file
        raise
    except Image.DecompressionBombError:
        raise Refused(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise anything at all on damaged bytes
        early = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise Refused(f"damaged: its {kind} data {'end too early' if early else 'cannot be decoded'}") from None
    return _decoded(image, channels, notes)


def _planes(data: bytes, kind: str, notes: list[str]) -> NDArray[Any]:
    """The channels of all pages: [C, H, W]."""
    is_wide = kind == "PNG" and data[24] == 16 and data[25] != 0
    parts = []
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        pages = getattr(image, "n_frames", 1)
        check_pixels(image.width, image.height * pages)
        if is_wide:
            return _16_bit_colour(data).transpose(2, 0, 1)
        check_bits(image)
        for page in range(pages):
            image.seek(page)
            plain = image.convert({"1": "L", "P": "RGB", "PA": "RGBA"}.get(image.mode, image.mode))
            plane = np.asarray(_turned(plain, _orientation(image, notes), notes))
            parts.append(plane[None] if plane.ndim == 2 else plane.transpose(2, 0, 1))
    if len({part.shape for part in parts}) > 1:
        raise Refused("pages of several sizes")
    return np.concatenate(parts)


def check_bits(image: Image.Image) -> None:
    """Raise Refused for a TIFF file of whose 16 bits Pillow reads 8."""
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 8)
    if image.mode[0] not in "IF" and np.max(bits) > 8:
        raise Refused(_CUT)


def _16_bit_colour(data: bytes) -> NDArray[np.uint16]:
    """The first frame of a PNG, [H, W, C]: Pillow reads the high bytes and, told the other order, the low ones."""
    halves = []
    for order in ("16B", "16L"):
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if not str(image.tile[0].args).startswith(image.mode):
                raise Refused(_CUT)
            image.tile = [tile._replace(args=f"{image.mode};{order}") for tile in image.tile]
            halves.append(np.asarray(image, np.uint16))
    return halves[0] * 256 + halves[1]


def from_planes(planes: NDArray[Any], size: Sides | None, channels: int, is_float: bool, notes: list[str]) -> Decoded:
    """Any number of channels, [C, H, W] of numbers, as `decode` makes them of a file. Raises Refused."""
    if not 1 <= len(planes) <= MOST_CHANNELS or channels not in (0, len(planes)):
        raise Refused(f"{len(planes)} channels, where {channels or f'at most {MOST_CHANNELS}'} are packed")
    if not is_float and planes.dtype != np.uint8:
        raise Refused(f"values of type {planes.dtype}; depth=float keeps them")
    values = as_float32(planes, notes) if is_float else planes
    if is_float and np.isinf(values).any():
        raise Refused("values that are infinite as float32; NaN stands for what is missing")
    if is_float and np.isnan(values).all():
        raise Refused("all values are missing")
    if size is not None and values.shape[1:] != size:
        values = np.stack([np.asarray(fit(Image.fromarray(plane), size, notes)) for plane in values])
    return Decoded(np.ascontiguousarray(values), tuple(dict.fromkeys(notes)))


def as_float32(values: NDArray[Any], notes: list[str] | None = None) -> NDArray[np.float32]:
    """Numbers as float32, infinite where they are beyond it; levels that are lost are noted."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if notes is not None and not np.array_equal(rounded, values, equal_nan=True):
        left, levels = (len(np.unique(numbers)) for numbers in (rounded, values))
        notes += [f"values rounded to float32 ({left:,} of {levels:,} levels left)"] * (left < levels)
    return rounded


def convert(image: Image.Image, size: Sides | None, channels: int, notes: list[str]) -> Decoded:
    """An image of Pillow as `decode` makes it of the same pixels in a file; ``notes`` are added. Raises Refused."""
    check_pixels(*image.size)
    return _decoded(fit(_to_8_bit(image, notes, "white"), size, notes), channels, notes)


def _decoded(image: Image.Image, channels: int, notes: list[str]) -> Decoded:
    if channels == 1 and image.mode == "RGB" and np.ptp(np.asarray(image), axis=2).max() > _GREY_ENOUGH:
        notes.append(COLOUR_LOST)
    return Decoded(to_array(image, channels), tuple(dict.fromkeys(notes)))


def fit(image: Image.Image, size: Sides | None, notes: list[str]) -> Image.Image:
    """Resize the centre of an image, of the proportions of ``size`` (H, W), to it; unchanged if None or fits already.

    Of NaN, a missing value, all that is computed is NaN. Raises Refused where it would be enlarged more than twice.
    """
    width, height = image.size
    if size is None or (height, width) == size:
        return image
    (H, W), (wide, high) = size, centre(width, height, size)
    if 2 * high < H:
        least = sized((-(-H // 2), -(-W // 2)))
        raise Refused(f"too small: {sized((height, width))}, packing at {sized(size)} needs at least {least}")
    if high < H:
        notes.append("enlarged, the shorter side is below the packed size")
    left, top = (width - wide) / 2, (height - high) / 2
    return image.resize((W, H), Image.Resampling.LANCZOS, box=(left, top, left + wide, top + high))


def centre(width: int, height: int, size: Sides) -> tuple[float, float]:
    """The width and the height of the largest part of an image that has the proportions of ``size`` (H, W)."""
    H, W = size
    return (width, width * H / W) if width * H <= height * W else (height * W / H, height)


def to_array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """An 8-bit image as a contiguous array [channels, H, W]; channels is 1 or 3."""
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def _load(data: bytes, kind: str, notes: list[str], ground: str) -> Image.Image:
    if kind == "WEBP":  # Pillow allocates its canvas when it opens the file
        check_pixels(*_webp_canvas(data))
    if kind == "PNG":  # decoding skips the checksums of the pixels
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            check_pixels(*image.size)
            image.verify()
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        check_pixels(*image.size)
        # Pillow turns TIFFs while loading; a PNG that is asked before would decode itself and hide its damage
        before = _orientation(image, notes) if kind == "TIFF" else 1
        image.load()
        left = _orientation(image, notes)
        if kind == "PNG":
            _scale_transparent(image, data[24])  # the header's bit depth
            if data[24] == 16 and not image.mode.startswith("I"):
                notes.append("16-bit colour cut to 8 bits; depth=float keeps 16")
        plain = _to_8_bit(image, notes, ground)
        plain = _turned(plain, left, notes, before)
        if getattr(image, "n_frames", 1) > 1:
            notes.append("first frame of several")
        return plain


def _turned(image: Image.Image, left: int, notes: list[str], before: int = 1) -> Image.Image:
    """The image as it is to be seen, by the orientation that is ``left`` of that ``before`` Pillow loaded it."""
    if before in _ORIENT or left in _ORIENT:
        notes.append("EXIF orientation applied")
    return image.transpose(_ORIENT[left]) if left in _ORIENT else image


def _scale_transparent(image: Image.Image, bits: int) -> None:
    """Bring a transparent grey or colour to the 8 bits of the pixels: Pillow leaves it as the file has it."""
    value, most = image.info.get("transparency"), (1 << bits) - 1  # of a larger value the lower bits count
    if image.mode == "L" and isinstance(value, int):
        image.info["transparency"] = (value & most) * {2: 85, 4: 17}.get(bits, 1)
    elif image.mode == "RGB" and isinstance(value, tuple):
        image.info["transparency"] = tuple(part >> 8 if bits == 16 else part & most for part in value)


def check_pixels(width: int, height: int) -> None:
    """Raise Refused for an image of more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise Refused(f"{sized((height, width))} is more than {MAX_PIXELS:,} pixels")


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as above; broken metadata does not spoil the pixels
        notes.append("unreadable EXIF ignored")
        return 1


def _to_8_bit(image: Image.Image, notes: list[str], ground: str) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        return _from_16_bit(image, notes, ground)
    if mode in ("I", "F", "LAB", "HSV"):
        kept = ", and depth=float keeps them" * (len(mode) == 1)
        raise Refused(f"pixels of mode {mode} (float, 32-bit or Lab) have no fixed range to map to 0..255{kept}")
    icc = image.info.get("icc_profile") or b""
    if icc and b"sRGB" not in icc.replace(b"\0", b"") and mode != "L":
        notes.append("colour profile other than sRGB ignored")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append(f"transparency composited on {ground}")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, ground), rgba).convert("RGB")
    if mode == "CMYK":
        notes.append("CMYK converted to RGB")
    return image.convert("L" if mode in ("1", "L") else "RGB")


def _from_16_bit(image: Image.Image, notes: list[str], ground: str) -> Image.Image:
    grey = from_16_bits(values := grey_of_16_bits(image))
    left = levels_left(int(np.count_nonzero(np.bincount(values.flat))), grey)
    notes.append(f"16-bit grey scaled to 8 bits; depth=float keeps 16 ({left})")
    clear = values == image.info.get("transparency", -1)
    if clear.any():
        notes.append(f"transparency composited on {ground}")
        grey[clear] = ImageColor.getcolor(ground, "L")
    return Image.fromarray(grey)


def grey_of_16_bits(image: Image.Image) -> NDArray[np.uint16]:
    """Grey values, the largest white: Pillow turns those of 8 bits alone. Raises Refused for other bits."""
    tags = getattr(image, "tag_v2", {})
    if (bits := tags.get(ExifTags.Base.BitsPerSample, 16)) not in (16, (16,)):
        raise Refused(f"{bits} bits a sample; 8 or 16 can be packed")
    values = np.asarray(image).astype(np.uint16)
    return 65535 - values if tags.get(ExifTags.Base.PhotometricInterpretation) == 0 else values


def from_16_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in 0..65535 as round(v / 257)."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def levels_left(levels: int, pixels: NDArray[np.uint8]) -> str:
    """How many of its ``levels`` an image still has as 8-bit pixels."""
    return f"{np.count_nonzero(np.bincount(pixels.flat))} of {levels:,} levels left"


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Read (width, height) from a WebP header, or others where it is damaged, which Pillow then reports."""
    chunk, body = data[12:16], data[20:30].ljust(10, b"\0")
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


Outcome = tuple[str, bytes, Decoded | Refused]
"""What became of one image: its path, its digest, and itself or why it is refused."""


class Group(NamedTuple):
    """What became of some images."""

    pixels: NDArray[Any]  # [accepted, C, H, W]
    kept: list[int]  # the places of the accepted ones among all
    refused: list[tuple[str, str]]  # (path, reason)
    notes: list[tuple[str, str]]  # (text, path)
    digest: str


def group_of(outcomes: Iterable[Outcome], shape: Shape | None) -> Group:
    """The images of one ``shape``, by default the first one's."""
    kept, decoded, digest = list[int](), list[NDArray[Any]](), hashlib.sha256()
    refused, notes = list[tuple[str, str]](), list[tuple[str, str]]()
    for place, (path, identity, outcome) in enumerate(outcomes):
        digest.update(identity)
        why: object = outcome
        if isinstance(outcome, Decoded):
            shape = shape or outcome.pixels.shape
            if outcome.pixels.shape == shape:
                kept.append(place)
                decoded.append(outcome.pixels)
                notes += [(text, path) for text in outcome.notes]
                continue
            why = f"{OTHER_SHAPE} {sized(outcome.pixels.shape[1:])} pixels, where others have {sized(shape[1:])}"
        refused.append((path, str(why)))
    pixels = np.stack(decoded) if decoded else np.empty((0, *(shape or (0,))), np.uint8)
    return Group(pixels, kept, refused, notes, digest.hexdigest())
