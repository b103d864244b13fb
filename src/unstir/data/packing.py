"""From any source of images to a packed store, once: validated, and the same bytes every time."""

import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from unstir import parts
from unstir.data.disk import checked_sha256, require_space, usable_path, what_it_is
from unstir.data.images import EXTENSIONS
from unstir.data.manifest import FORMAT, SPLITS, Origin, read_origin
from unstir.data.source import NAMES, PREFIX, Options, Source, is_named, joint_digest
from unstir.data.store import Store, Writer, is_store, publish, staging_folder
from unstir.errors import UserError, nearest, printable, within_memory
from unstir.parts import Option, is_own
from unstir.progress import counting

_ENDINGS = ".tar", ".tar.gz", ".tgz"
_SAVED = "dataset_dict.json", "state.json"  # what marks a folder that datasets saved
_START = 264  # bytes of a file that tell what it is

_EXAMPLES = 10
_GIVEN = f"give {', '.join(NAMES)}, {PREFIX}OWNER/NAME, or a folder, zip, tar, .npy, .npz or .parquet file of images"
_ANOTHER = "choose another folder"


def pack(
    source: object,
    out: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    held_out: float | None = None,
    sha256: str | None = None,
    download_dir: str | Path | None = None,
    strict: bool = False,
    seed: int = 0,
    license: str = "",
    options: Mapping[str, Option] = MappingProxyType({}),
) -> Store:
    """Pack `source` into the folder `out` and open it; a finished store of the same source and settings is just opened.

    source: "mnist" or "digits" (embedded, 28x28 and 8x8 grey), "cifar10" (downloaded to download_dir, by default out's
        parent), or the path of a CIFAR-10 archive (.tar.gz, binary or python), a folder, zip or tar of images, a .npy,
        .npz, parquet or webdataset tar file or a folder of these, a folder that the library datasets saved;
        "hf:OWNER/NAME"; arrays (images, or a tuple or mapping with labels); a torch Dataset (all in docs/data.md); or
        MODULE:NAME, a function below `unstir.source` that returns any of the last two, with its ``options``.
    size: side of the packed square in pixels, 1..4096; None keeps the images' own common shape.
    channels: 1 (grey) or 3 (RGB); None means 1 for mnist and digits, 3 for all else.
    held_out: fraction in [0, 1) of each class kept from training; None means 1/6 for digits and 1/10 for others. It
        does not apply to sources that bring a split: CIFAR-10, and folders named train and test.
    sha256: the expected hash of a source that is one file, in hex; for CIFAR-10 in place of the official ones.
    strict: refused files are an error. seed: picks the held-out images. license: of the data; "" is the source's.

    Interrupted at any instant, the same call begins again; the result is byte-identical to an uninterrupted one.
    Raises UserError for every mistake in the arguments and the source, OSError for what the disk refuses.
    """
    out, downloads = usable_path(out), usable_path(download_dir or Path(out).parent)
    out = Path(os.path.realpath(out)) if out.is_symlink() else out  # no folder can be renamed to a link
    try:
        with within_memory("size"):
            given = size, channels, held_out, sha256, downloads, strict, seed, license, dict(options)
            origin = source_of(Options(source, *given))
            if finished := _finished(origin, out):
                return finished
            with staging_folder(out) as staging:
                if finished := _finished(origin, out):  # by another process meanwhile
                    return finished
                _pack(origin, staging, out)
    except OSError as error:
        if error.errno:
            error.filename = error.filename or str(out)  # a write that fails names no file
        raise
    return Store.open(out)


def source_of(options: Options) -> Source:
    """The source that the arguments of `pack` name. Raises UserError for what is out of range, missing or no source."""
    source = options.source
    if isinstance(source, str) and source == "cifar10":  # whose hash is compared when it is there
        from unstir.data.cifar10 import CifarSource

        return CifarSource(None, options)
    named = isinstance(source, str) and is_named(source)
    path = usable_path(source) if isinstance(source, str | Path) and not named else None
    if sha256 := options.sha256:
        if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise UserError("sha256", sha256, "must be 64 hexadecimal digits", "give what sha256sum prints")
        if path is None or path.is_dir():
            raise UserError("sha256", sha256, "is the hash of one file, and the source is none", {"sha256": None})
    if path:
        return _of_path(path, str(source), options)
    if not isinstance(source, str) or is_own(source):
        from unstir.data.arrays import in_memory

        if isinstance(source, str):
            source = parts.make("source", source, options=options.options, section="options")
        memory = in_memory(replace(options, source=source))
        memory.name = options.source if isinstance(options.source, str) else memory.name
        return memory
    if options.options:
        raise UserError("options", options.options, f"are of MODULE:NAME, not of {source}", {"options": None})
    if source in NAMES:
        from unstir.data.embedded import EmbeddedSource

        return EmbeddedSource(options)
    from unstir.data.columns import HubDataset

    return HubDataset(source, options)


def _of_path(path: Path, name: str, options: Options) -> Source:
    """The source that a path is, which was given by this ``name``. Raises UserError where it is none."""
    try:
        status, start = path.stat(), b""
    except (FileNotFoundError, NotADirectoryError):
        near = nearest(name, NAMES)
        raise UserError("source", path, "does not exist", f"did you mean {near}?" if near else _GIVEN) from None
    mode = status.st_mode
    if stat.S_ISREG(mode) and status.st_size:  # files of the kernel have no length, and may let a reader wait
        if options.sha256:
            checked_sha256(path, options.sha256.lower())
        with path.open("rb") as stream:
            start = stream.read(_START)
    if stat.S_ISDIR(mode) and is_store(path):
        raise UserError("source", path, "is a packed store already", "use it as it is")
    gzipped = start[:2] == b"\x1f\x8b"
    if gzipped:
        from unstir.data.cifar10 import CifarSource, is_cifar

        if is_cifar(path):
            return CifarSource(path, options)
    if tars := [path] if gzipped or start[257:262] == b"ustar" else _in_folder(path, *_ENDINGS):
        from unstir.data.tars import TarSource

        return TarSource(tars, options)
    if (records := _records(path, start, options)) is not None:
        return records
    if stat.S_ISDIR(mode) or start[:2] == b"PK":
        from unstir.data.folder import FolderSource

        return FolderSource(path, options)
    kind = "a file of another kind" if stat.S_ISREG(mode) else what_it_is(mode)
    raise UserError("source", path, f"is {kind}", "give the folder that holds the images")


def _records(path: Path, start: bytes, options: Options) -> Source | None:
    """A file or folder whose images are rows; None for images that are files, and for what is not known."""
    if start[:6] == b"\x93NUMPY" or (start[:2] == b"PK" and path.suffix == ".npz"):
        from unstir.data.arrays import ArrayFile

        return ArrayFile(path, options)
    from unstir.data.columns import HubDataset, Parquet

    if any((path / name).is_file() for name in _SAVED):
        return HubDataset(path, options)
    tables = [path] if start[:4] == b"PAR1" else _in_folder(path, ".parquet")
    return Parquet(tables, options) if tables else None


def _in_folder(path: Path, *endings: str) -> list[Path]:
    """The files in a folder whose names end so; none where images or folders lie beside them."""
    files = [file for file in path.iterdir() if not file.name.startswith(".")] if path.is_dir() else []
    if any(file.is_dir() or file.suffix.lower() in EXTENSIONS for file in files):
        return []
    return [file for file in files if file.name.endswith(endings) and file.is_file()]


def _pack(origin: Source, staging: Path, out: Path) -> None:
    name, stamp = origin.name, origin.stamp()
    plan = origin.plan(staging)
    needed = plan.total * (math.prod(plan.shape) + 8 * bool(plan.classes)) + (1 << 16)
    require_space(staging, needed)
    classes = list(map(printable, plan.classes))
    with Writer(staging / "store", plan.shape, bool(classes)) as writer:
        with closing(plan.chunks()) as chunks, counting("packing", "images") as count:
            for chunk in chunks:
                writer.write(chunk)
                count(writer.done, plan.total)
        content = writer.finish(classes)
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
        "counts": {split: writer.rows[split] for split in SPLITS},
        "classes": classes,
        "counts_per_class": {split: np.bincount(n, minlength=len(classes)).tolist() for split, n in labels.items()},
        "held_out_rule": plan.held_out_rule,
        "refused": refused,
        "notes": _notes((*plan.notes, *writer.notes)),
    }, Origin(name, stamp, origin.license))  # fmt: skip


def _check_refused(origin: Source, refused: Sequence[tuple[str, str]], packed: bool = True) -> None:
    """Raise UserError where nothing is packed, or something refused though the caller is strict."""
    name, listed = origin.name, [f"{path} ({reason})" for path, reason in refused]
    if not packed:
        raise UserError(
            "", name, f"has no images to pack: all {len(refused)} are refused, such as {', '.join(listed[:1])}"
        )
    if origin.options.strict and refused:
        more = ", ..." if len(refused) > _EXAMPLES else ""
        allowed = f"has files that are refused ({len(refused)}): {', '.join(listed[:_EXAMPLES])}{more}"
        raise UserError("", name, allowed, ("mend them", {"strict": None}))


def _finished(origin: Source, out: Path) -> Store | None:
    """Open what `out` holds if it is what would be packed; None if there is nothing. Raises UserError if it is else."""
    source = origin.name
    apart = origin.kind not in ("folder", "parquet", "tar", "datasets")
    if not apart and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source)):
        raise UserError("", out, f"lies inside the images' folder {source}, which packing must not change", _ANOTHER)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not is_store(out):
        raise UserError("", out, "exists and is not a packed store", _ANOTHER)
    store = Store.open(out)
    packed, (place, stamp, _) = store.manifest, read_origin(out)
    anew = f"{_ANOTHER}, or delete this one if no run needs it"
    if packed["kind"] != origin.kind:
        raise UserError("", out, f"holds {packed['kind']}, not {origin.kind}", anew)
    old, new = packed["settings"], origin.settings
    if other := {name: old.get(name) for name in old | new if old.get(name) != new.get(name)}:
        raise UserError("", out, "was packed with other settings", (anew, other))
    surely = stamp == origin.stamp() and origin.kind != "dataset"  # whose stamp is of some items only
    if not surely and packed["source_hash"] != origin.source_hash(store.shape):
        raise UserError("", out, f"holds {place or 'another source'}, and {source} differs from it", anew)
    _check_refused(origin, store.refused)
    return store


def _notes(notes: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Group notes by text, most frequent first, each with its first ten paths; what is in brackets is of one path."""
    paths: dict[str, list[str]] = {}
    for note, path in notes:
        text, bracket, detail = note.partition(" (")
        paths.setdefault(text, []).append(f"{path}{bracket}{detail}")
    ranked = sorted(paths.items(), key=lambda item: (-len(item[1]), item[0]))
    return [{"text": text, "count": len(of), "examples": [*map(printable, of[:_EXAMPLES])]} for text, of in ranked]
