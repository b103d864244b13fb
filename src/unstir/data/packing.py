"""From any source of images to a packed store, once: validated, the same bytes every time, and what to know of them."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from unstir.data.disk import require_space, usable_path
from unstir.data.manifest import FORMAT, SPLITS, Origin, read_origin, write_origin
from unstir.data.source import NAMES, Options, Plan, Source, joint_digest
from unstir.data.store import Store, Writer, arrays, is_store, publish, staging_folder
from unstir.errors import UserError, printable, within_memory
from unstir.parts import Option, is_own, make
from unstir.pixels import HALF
from unstir.progress import counted, counting

_EXAMPLES = 10
_ANOTHER = "choose another folder"


def pack(
    source: object,
    out: str | Path,
    *,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    held_out: float | None = None,
    sha256: str | None = None,
    download_dir: str | Path | None = None,
    strict: bool = False,
    seed: int = 0,
    license: str = "",
    depth: str = "auto",
    scale: tuple[float, ...] = (),
    options: Mapping[str, Option] = MappingProxyType({}),
    conditions: str | Path = "",
) -> Store:
    """Pack `source` into the folder `out` and open it; a finished store of the same source and settings is just opened.

    - source: "mnist", "digits", "cifar10" (downloaded to download_dir, by default out's parent), "hf:OWNER/NAME",
      a path, MODULE:NAME with ``options``, arrays (images, or a tuple or mapping with labels), a torch Dataset, or an
      object of the library datasets (docs/data.md).
    - size: side of the packed square in pixels, 1..4096, or (H, W), also as "HxW"; None for the images' own.
    - channels: 1 (grey), 3 (RGB), or what there is, 1..64; None: 1 of mnist and digits, all of floats and of
      other than 1, 3 or 4, else 3.
    - held_out: fraction in [0, 1) of each class kept from training without a split of the source; None: 1/6 or 1/10.
    - sha256: the expected hash of a source that is one file, in hex; for CIFAR-10 in place of the official ones.
    - depth: "8" packs 0..255, "float" values as float32, NaN missing; "auto": float for floats that are no levels.
    - scale: values that become -1 and 1, one pair or one a channel; by default the range of each in the training split.
    - conditions: file of numbers for each image of a folder, zip or tar: a table with file_name, or .npy [N, K].
    - strict: refused files are an error. seed: picks the held-out images. license: of the data; "" is the source's.

    After a kill the same call begins again, with the same bytes. Raises UserError for every mistake in the arguments
    and the source, OSError for what the disk refuses.
    """
    downloads = usable_path(download_dir or Path(out).parent)
    rest: Any = downloads, strict, seed, license, depth, tuple(scale), dict(options), str(conditions)
    return packed(Options(source, size, channels, held_out, sha256, *rest), out)  # type: ignore[arg-type]


def packed(options: Options, out: str | Path, check: Callable[[Plan], None] = lambda plan: None) -> Store:
    """`pack`, by these options; ``check`` raises UserError for a plan that is refused."""
    out = usable_path(out)
    out = Path(os.path.realpath(out)) if out.is_symlink() else out  # no folder can be renamed to a link
    try:
        with within_memory("size"):
            origin = origin_of(options)
            if finished := _finished(origin, out):
                return finished
            with staging_folder(out) as staging:
                if finished := _finished(origin, out):  # by another process meanwhile
                    return finished
                _pack(origin, staging, out, check)
    except OSError as error:
        if error.errno:
            error.filename = error.filename or str(out)  # a write that fails names no file
        raise
    return Store.open(out)


def origin_of(options: Options) -> Source[Any]:
    """The source that the options name. Raises UserError where they name none."""
    name, made = options.source, None
    if isinstance(name, str) and (name in NAMES or is_own(name)):
        made = make("source", name, options=options.options, section="options")
        if made is None:
            raise UserError("source", name, "returns nothing", "return images, or (images, labels)")
        if isinstance(made, type):  # a form of its own
            return made(options)  # type: ignore[no-any-return]
    from unstir.data.forms import source_of  # with what reads each form

    if made is None:
        return source_of(options)
    origin = source_of(replace(options, source=made, options={}))
    origin.name = name
    origin.settings |= {f"options.{key}": value for key, value in options.options.items()}
    return origin


def _pack(origin: Source[Any], staging: Path, out: Path, check: Callable[[Plan], None]) -> None:
    name, stamp = origin.name, origin.stamp()
    plan = origin.plan(staging)
    check(plan)
    classes, scale = list(map(printable, plan.classes)), _scale(origin.options.scale, plan)
    known: dict[str, Any] = {"shape": plan.shape, "classes": classes, "condition": list(plan.condition)}
    known["scale"] = scale or [[-1, 1]] * plan.is_float
    planned = arrays(staging, {**known, "counts": plan.counts}).values()
    require_space(staging, sum(array.length for array in planned) + (1 << 16))
    with Writer(staging / "store", known) as writer:
        with closing(plan.chunks()) as chunks, counting("packing", "images") as count:
            for chunk in chunks:
                writer.write(chunk)
                count(writer.done, sum(plan.counts.values()))
        is_given = bool(scale)
        scale = scale or (_ranges(writer) if plan.is_float else [])
        content = writer.finish(scale)
        if not is_given:
            _check_fill(name, writer, scale)
    if origin.stamp() != stamp:
        mend = "leave out random transforms" if origin.kind == "dataset" else "pack it again"
        raise UserError("", name, "changed while it was packed", mend)
    refused = sorted((printable(path), printable(why)) for path, why in (*plan.refused, *writer.refused))
    _check_refused(origin, refused, any(writer.rows.values()))
    labels = {split: np.load(writer.arrays()[split, "labels"].file) for split in SPLITS if classes}
    publish(writer.store, out, {
        "unstir_store": FORMAT,
        "kind": origin.kind,
        "settings": origin.settings,
        "source_hash": plan.source_hash or joint_digest(writer.digests),
        "content_hash": content,
        "shape": plan.shape,
        "scale": scale,
        "counts": {split: writer.rows[split] for split in SPLITS},
        "classes": classes,
        "condition": list(plan.condition),
        "counts_per_class": {split: np.bincount(n, minlength=len(classes)).tolist() for split, n in labels.items()},
        "held_out_rule": plan.held_out_rule,
        "refused": refused,
        "notes": _notes((*plan.notes, *writer.notes)),
    }, Origin(name, stamp, origin.license))  # fmt: skip


def _scale(given: Sequence[float], plan: Plan) -> list[list[float]]:
    """What becomes -1 and 1 in each channel, where it is ``given``. UserError where it does not fit."""
    pairs = [[low, high] for low, high in zip(given[::2], given[1::2], strict=False)]
    if given and not plan.is_float:
        raise UserError("scale", tuple(given), "is of floating point, and these are pixels", {"depth": "float"})
    rising = all(-math.inf < low < high < math.inf for low, high in pairs)
    if given and not (len(given) in (2, 2 * plan.shape[0]) and rising):
        due = f"must be low and high, or as many such pairs as channels, {plan.shape[0]}"
        raise UserError("scale", tuple(given), due, {"scale": None})
    return pairs * plan.shape[0] if len(pairs) == 1 else pairs


def _ranges(writer: Writer) -> list[list[float]]:
    ranges = zip(writer.low.tolist(), writer.high.tolist(), strict=True)
    ends = [(low, high) if low <= high else (0.0, 0.0) for low, high in ranges]  # of a channel without a value
    return [[low, high] if low < high else [low - 1, high + 1] for low, high in ends]


def _check_fill(name: str, writer: Writer, scale: Sequence[Sequence[float]]) -> None:
    """Raise UserError where a channel's range ends in a value that files of science have for a missing one."""
    images = np.load(writer.arrays()["train", "images"].file, mmap_mode="r")
    for channel, ends in enumerate(scale):
        for end in ends:
            if end not in _FILL and abs(end) < _HUGE:
                continue
            parts = (images[begin : begin + _AT_ONCE, channel] for begin in range(0, len(images), _AT_ONCE))
            count = sum(int(np.count_nonzero(part == end)) for part in parts)
            if count > 1:
                fill = f"has the value {end:.6g} {count} times in channel {channel}, which seems to stand for missing"
                mend = "write NaN in its place, or give the range of the others as scale"
                raise UserError("", name, f"{fill} values", mend)


def _check_refused(origin: Source[Any], refused: Sequence[tuple[str, str]], packed: bool = True) -> None:
    name, listed = origin.name, [f"{path} ({reason})" for path, reason in refused]
    if not packed:
        raise UserError("", name, f"has no images to pack: all {len(refused)} are refused, such as {listed[0]}")
    if origin.options.strict and refused:
        more = ", ..." if len(refused) > _EXAMPLES else ""
        allowed = f"has files that are refused ({len(refused)}): {', '.join(listed[:_EXAMPLES])}{more}"
        raise UserError("", name, allowed, ("mend them", {"strict": None}))


def _finished(origin: Source[Any], out: Path) -> Store | None:
    """The store in `out` if it is what would be packed; None if there is nothing. UserError for all else."""
    source = origin.name
    apart = origin.kind not in ("folder", "parquet", "tar", "datasets")
    if not apart and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source)):
        raise UserError("", out, f"lies inside the images' folder {source}, which packing must not change", _ANOTHER)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not is_store(out):
        raise UserError("", out, "exists and is not a packed store", _ANOTHER)
    store = Store.open(out)
    packed, (place, stamp, license) = store.manifest, read_origin(out)
    anew = f"{_ANOTHER}, or delete this one if no run needs it"
    if packed["kind"] != origin.kind:
        raise UserError("", out, f"holds {packed['kind']}, not {origin.kind}", anew)
    old, new = packed["settings"], origin.settings
    if other := {name: old.get(name) for name in old | new if old.get(name) != new.get(name)}:
        other.pop("conditions", None)  # a hash, which nobody can type
        raise UserError("", out, "was packed with other settings", (anew, other))
    surely = stamp == origin.stamp() and origin.kind != "dataset"  # whose stamp is of some items only
    if not surely and packed["source_hash"] != origin.source_hash(store.shape):
        raise UserError("", out, f"holds {place or 'another source'}, and {source} differs from it", anew)
    _check_refused(origin, store.refused)
    if origin.options.license not in ("", license):
        write_origin(out, Origin(place, stamp, origin.license))
    return store


def _notes(notes: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Notes by text, most frequent first, with the first paths of each; what is in brackets is of one path."""
    paths: dict[str, list[str]] = {}
    for note, path in notes:
        text, bracket, detail = note.partition(" (")
        paths.setdefault(text, []).append(f"{path}{bracket}{detail}")
    ranked = sorted(paths.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"text": text, "count": len(of), "examples": [*map(printable, of[:_EXAMPLES])]} for text, of in ranked]


_FILL, _HUGE = (-999, -9999, -32768), 1e19  # NetCDF's own is 9.97e36, climate models' 1e20
_AT_ONCE = 64  # images

# Thresholds; docs/doctor.md has what the data sets here measure.
NARROW = 32  # levels of 255 from the darkest value to the lightest
FAINT = 0.1  # standard deviation of the values in [-1, 1], where the SNR is 50 times less than for digits
SPREAD = "spread the values over 0..255 before packing (12 bits in files of 16: times 16; a mask of 0 and 1: times 255)"
_LOOKED_AT = 1 << 24  # bytes of images


def weakness(least: int, most: int, std: float) -> str:
    """What is wrong with images' range: ``least``, ``most`` in 0..255, ``std`` in units of [-1, 1]; "" for nothing."""
    if most - least < NARROW:
        return "the images use a small part of the range"
    return "the images have hardly any contrast" if std < FAINT else ""


def remarks(store: Store) -> list[str]:
    """What a person should know of packed images, a sentence each: their notes, and what is found in their values."""
    images, lines = store.images("train"), list(map(str, store.notes))
    if not len(images):
        return lines
    images = images[:: -(-len(images) // max(1, _LOOKED_AT // math.prod(store.shape)))]
    if (scale := store.scale).is_float:
        missing = images.isnan().double().mean().item()
        return [*lines, f"values are {scale.in_words}; {missing:.1%} are missing"]
    if store.shape[0] == 3 and (images == images[:, :1]).all():
        lines.append("the images are grey, packed as RGB; with 1 channel they take a third of the size")
    levels, at = torch.bincount(images.flatten(), minlength=256).double(), torch.arange(256.0, dtype=torch.float64)
    mean, seen = levels @ at / levels.sum(), levels.nonzero()
    least, most = int(seen.min()), int(seen.max())
    std = math.sqrt(levels @ (at - mean).square() / levels.sum()) / HALF
    if weak := weakness(least, most, std):
        values = f"the values of {counted(len(images), 'training image')} lie in {least}..{most} of 0..255"
        lines.append(f"{weak}: {values}, deviation {std:.3f} in [-1, 1]; {SPREAD}, and pack anew")
    return lines
