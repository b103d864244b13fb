"""Which form a source of images has: the first row of this table whose sign fits. A reader is loaded when it is chosen.

| sign                                                            | form                                 | read by    |
|-----------------------------------------------------------------|--------------------------------------|------------|
| the text mnist, digits                                          | digits inside the package            | `embedded` |
| the text cifar10; data_batch_1 in a folder or a .tar.gz         | CIFAR-10, python or binary           | `cifar10`  |
| the text hf:OWNER/NAME; dataset_dict.json, state.json           | a data set of the Hub, or a saved one| `columns`  |
| NAME-images-idx3-ubyte, also .gz, in the folder, raw or NAME/raw| MNIST and its relatives              | `idx`      |
| the start of a tar or gzip; a folder of .tar, .tar.gz, .tgz     | a tar of images, or webdataset       | `tars`     |
| the start of NumPy's files; a zip named .npz                    | arrays, also with the names of splits| `arrays`   |
| PAR1 as start; a folder of .parquet; data/ or README.md with it | tables, or a clone from the Hub      | `columns`  |
| any other folder or zip                                         | files of images                      | `folder`   |
| ... with metadata.csv or dataset.json in it                     | the same, its labels in that file    | `beside`   |
| an object of the library datasets                               | its columns                          | `columns`  |
| arrays, lists, a tuple or mapping of them; a torch Dataset      | arrays or items                      | `arrays`   |
"""

import re
import stat
from pathlib import Path

from unstir.data.disk import checked_sha256, usable_path, what_it_is
from unstir.data.images import EXTENSIONS
from unstir.data.source import NAMES, PREFIX, Options, Source, is_named
from unstir.data.store import is_store
from unstir.errors import UserError, nearest

_TARS = ".tar", ".tar.gz", ".tgz"
_GZIP = b"\x1f\x8b"
_SAVED = "dataset_dict.json", "state.json"
_START = 264  # bytes of a file that tell what it is
_GIVEN = f"give {', '.join(NAMES)}, {PREFIX}OWNER/NAME, or a folder, zip, tar, .npy, .npz or .parquet file of images"


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
    if hasattr(source, "cast_column"):  # of the library datasets
        from unstir.data.columns import HubDataset

        return HubDataset(source, options)
    if not isinstance(source, str):
        from unstir.data.arrays import in_memory

        return in_memory(options)
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
    for form in (_cifar, _idx, _tar, _numpy, _tables):
        if source := form(path, start, options):
            return source
    if stat.S_ISDIR(mode) or start[:2] == b"PK":
        from unstir.data.folder import FolderSource

        return FolderSource(path, options)
    kind = "a file of another kind" if stat.S_ISREG(mode) else what_it_is(mode)
    raise UserError("source", path, f"is {kind}", "give the folder that holds the images")


def _cifar(path: Path, start: bytes, options: Options) -> Source | None:
    from unstir.data.cifar10 import CifarSource, cifar_in

    place = cifar_in(path) if path.is_dir() or start[:2] == _GZIP else None
    return CifarSource(place, options) if place else None


def _idx(path: Path, start: bytes, options: Options) -> Source | None:
    from unstir.data.idx import IdxFiles, idx_in

    files = idx_in(path)
    return IdxFiles(files, options) if files else None


def _tar(path: Path, start: bytes, options: Options) -> Source | None:
    from unstir.data.tars import TarSource

    tars = [path] if start[:2] == _GZIP or start[257:262] == b"ustar" else _in_folder(path, *_TARS)
    return TarSource(tars, options) if tars else None


def _numpy(path: Path, start: bytes, options: Options) -> Source | None:
    from unstir.data.arrays import ArrayFile

    is_numpy = start[:6] == b"\x93NUMPY" or (start[:2] == b"PK" and path.suffix == ".npz")
    return ArrayFile(path, options) if is_numpy else None


def _tables(path: Path, start: bytes, options: Options) -> Source | None:
    from unstir.data.columns import HubDataset, Parquet, of_clone

    if any((path / name).is_file() for name in _SAVED):
        return HubDataset(path, options)
    tables = [path] if start[:4] == b"PAR1" else _in_folder(path, ".parquet") or of_clone(path)
    return Parquet(tables, options) if tables else None


def _in_folder(path: Path, *endings: str) -> list[Path]:
    """The files in a folder whose names end so; none where images or folders lie beside them."""
    files = [file for file in path.iterdir() if not file.name.startswith(".")] if path.is_dir() else []
    if any(file.is_dir() or file.suffix.lower() in EXTENSIONS for file in files):
        return []
    return [file for file in files if file.name.endswith(endings) and file.is_file()]
