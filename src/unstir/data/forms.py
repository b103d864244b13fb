"""Which form a source of images has, by its content: the first sign that fits. docs/data.md has the table."""

import json
import stat
from pathlib import Path
from typing import Any

from unstir.data.arrays import ArrayFile, IdxFiles, TiffFile, idx_in, in_memory
from unstir.data.cifar10 import CifarSource, cifar_in
from unstir.data.columns import HubDataset, Parquet, of_clone
from unstir.data.disk import check_sha256, file_sha256, usable_path
from unstir.data.folder import FolderSource
from unstir.data.images import EXTENSIONS, signature
from unstir.data.source import NAMES, PREFIX, Options, Source
from unstir.data.store import is_store
from unstir.data.tars import TarSource
from unstir.errors import UserError, nearest

_TARS = ".tar", ".tar.gz", ".tgz"
_SAVED = "dataset_dict.json", "state.json"
_START = 264  # bytes of a file that tell what it is
_GIVEN = f"give {', '.join(NAMES)}, {PREFIX}OWNER/NAME, or a folder, zip, tar, .npy, .npz or .parquet file of images"


def source_of(options: Options) -> Source[Any]:
    """The source that the options name, which is no part. UserError for what is missing or no source."""
    source = options.source
    if options.options:
        raise UserError("options", options.options, "are of a source MODULE:NAME alone", {"options": None})
    on_hub = isinstance(source, str) and source.startswith(PREFIX)
    path = usable_path(source) if isinstance(source, str | Path) and not on_hub else None
    if options.sha256 and (path is None or path.is_dir()):
        raise UserError("sha256", options.sha256, "is the hash of one file, and the source is none", {"sha256": None})
    if path:
        return _of_path(path, *_look(path, options), options)
    if isinstance(source, str) or hasattr(source, "cast_column"):  # as objects of the library datasets have it
        return HubDataset(source, options)
    return in_memory(options)


def _look(path: Path, options: Options) -> tuple[int, bytes]:
    """The mode of a path and how its content begins. UserError where it is not there, or has another hash."""
    try:
        status, start = path.stat(), b""
    except (FileNotFoundError, NotADirectoryError):
        near = nearest(str(options.source), NAMES)
        raise UserError("source", path, "does not exist", f"did you mean {near}?" if near else _GIVEN) from None
    if stat.S_ISREG(status.st_mode) and status.st_size:  # those of the kernel have no length, and may never answer
        if options.sha256:
            check_sha256(path, options.sha256.lower())
        with path.open("rb") as stream:
            start = stream.read(_START)
    return status.st_mode, start


def _of_path(path: Path, mode: int, start: bytes, options: Options) -> Source[Any]:
    is_folder, gzipped, zipped = stat.S_ISDIR(mode), start[:2] == b"\x1f\x8b", start[:2] == b"PK"
    if is_folder and is_store(path):
        raise UserError("source", path, "is a packed store already", "use it as it is")
    if (is_folder or gzipped) and (place := cifar_in(path)):
        return CifarSource(options, place)
    if files := idx_in(path):
        return IdxFiles(files, options)
    if tars := [path] if gzipped or start[257:262] == b"ustar" else _in_folder(path, *_TARS):
        return TarSource(options, sorted(tars))
    if start[:6] == b"\x93NUMPY" or (zipped and path.suffix == ".npz"):
        return ArrayFile(options, [path])
    if is_folder and (array := _drawn_in(path)):
        return ArrayFile(options, [array])
    if signature(start) == "TIFF":
        return TiffFile(options, [path])
    if any((path / name).is_file() for name in _SAVED):
        return HubDataset(path, options)
    if tables := [path] if start[:4] == b"PAR1" else _in_folder(path, ".parquet") or of_clone(path):
        return Parquet(tables, options)
    if is_folder or zipped:
        return FolderSource(path, options)
    raise UserError("source", path, "is no file or folder of a known form", "give the folder that holds the images")


def _drawn_in(path: Path) -> Path | None:
    """The array that `unstir sample --format npy` drew into a folder, by its hash in the settings."""
    array, settings = path / "images.npy", path / "settings.json"
    if not (array.is_file() and settings.is_file()):
        return None
    try:
        known = json.loads(settings.read_bytes())
        expected = known["array"] if known["format"] == "npy" else ""
    except (OSError, ValueError, KeyError, TypeError):  # of another program
        return None
    if expected and file_sha256(array) != expected:
        raise UserError("source", array, f"is not the array that {settings.name} names", "draw its images again")
    return array if expected else None


def _in_folder(path: Path, *endings: str) -> list[Path]:
    """The files in a folder whose names end so; none where images or folders lie beside them."""
    files = [file for file in path.iterdir() if not file.name.startswith(".")] if path.is_dir() else []
    if any(file.is_dir() or file.suffix.lower() in EXTENSIONS for file in files):
        return []
    return [file for file in files if file.name.endswith(endings) and file.is_file()]
