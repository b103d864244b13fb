"""Files and folders that are whole or absent: written under a temporary name, synced, renamed, the rename synced too.

Files of one JSON object carry a checksum. What is read from any of them is checked for its kind, so that no reader
meets text where it computes.
"""

import errno
import glob
import json
import math
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

import unstir
from unstir.data.disk import held, sync_folder
from unstir.errors import REMEDIES, UnwrittenError, UserError, short

if TYPE_CHECKING:
    from PIL.Image import Image

PARTIAL = ".partial"


@contextmanager
def writing(path: Path, needs: int = 0) -> Iterator[None]:
    """An error of the disk in this block is an UnwrittenError of ``path``, with its ``needs`` (bytes, where known)."""
    try:
        yield
    except UnwrittenError:
        raise
    except (OSError, SafetensorError) as error:
        raise UnwrittenError(getattr(error, "errno", None), _reason(path, needs, error), str(path)) from None


@contextmanager
def replacing(path: Path, needs: int = 0) -> Iterator[Path]:
    """Yield a temporary path to write; when the block ends well it takes the place of ``path``, durably.

    When it fails, ``path`` keeps what it had; errors are those of `writing`, also where fewer bytes are free than it
    ``needs``. Each process has a temporary file of its own. A kill leaves that there (`remove_partials`).
    """
    partial = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with writing(path, needs):
            if needs and shutil.disk_usage(path.parent).free < needs:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            partial.touch()
            mode = partial.stat().st_mode  # what the user's umask grants; some writers would hide it from others
            yield partial
            partial.chmod(mode)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def remove_partials(folder: Path, name: str = "") -> None:
    """Remove what killed processes left half written; for the holder of the lock of ``folder``."""
    for partial in folder.glob(f".{name}*{PARTIAL}"):
        partial.unlink(missing_ok=True)


@contextmanager
def staging(parent: Path, name: str) -> Iterator[Path]:
    """A new folder in ``parent`` for what is renamed from there, gone after the block; dead ones go before it."""
    for lock in parent.glob(f".{glob.escape(name)}.????????{PARTIAL}.lock"):
        with suppress(OSError, _LivingError), held(lock, _LivingError()) as is_ours:
            if is_ours:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    partial = parent / f".{name}.{secrets.token_hex(4)}{PARTIAL}"
    with held(partial.with_name(f"{partial.name}.lock")):
        try:
            partial.mkdir()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class _LivingError(Exception):
    """Another process is using it."""


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a text file, durably; errors as `replacing`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by a file of this content, durably; errors as `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def save_png(path: Path, picture: "Image", **words: str) -> None:
    """Replace ``path`` by a picture that says these `words_of` it, durably; errors as `replacing`."""
    from unstir.pictures.grid import with_words  # with Pillow, which few commands need

    with replacing(path) as partial:
        picture.save(partial, format="png", pnginfo=with_words(**words))


def words_of(path: Path) -> dict[str, Any]:
    """What a picture says beside its pixels, or a file of settings. Raises OSError where there is none."""
    from PIL import Image

    if path.suffix == ".json":
        return parsed(path.read_bytes())

    with Image.open(path) as picture:
        return {str(key): value for key, value in picture.info.items()}


def is_of(path: Path, **words: object) -> bool:
    """Whether a picture or a file of settings says these `words_of` it; True if it cannot be read."""
    with suppress(Exception):  # decoders raise anything at all on damaged bytes
        said = words_of(path)
        return all(said.get(key) == value for key, value in words.items())
    return True


def made_by(command: str) -> dict[str, Any]:
    """What every file of settings begins with: the ``command`` that makes such a result, and the version."""
    return {"command": command, "unstir": unstir.__version__}


def make_folder(path: Path) -> Path:
    """The folder, made where it was not."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def _reason(path: Path, needs: int, error: Exception) -> str:
    """Why ``path`` was not written, in the system's words, with what is free; of another file, with its name."""
    reason, other = getattr(error, "strerror", "") or " ".join(str(error).split()), getattr(error, "filename", None)
    if other and path.name[:50] not in str(other):
        return f"{other}: {reason}"
    try:
        space = f"{shutil.disk_usage(path.parent).free / 1e6:.1f} MB are free there"
    except OSError:
        space = "its folder is gone"
    need = f"it needs {needs / 1e6:.1f} MB; " if needs else ""
    return f"{reason} ({need}{space})"


def check_writable(folder: Path, key: str = "") -> None:
    """Raise UserError, of the argument ``key``, where no file can be made in ``folder`` or where it will lie.

    A file without a name is made there, which leaves no trace, so that a read-only disk and a quota are noticed too.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(key, folder, f"cannot be made: {place} is a file", "name another")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        mend = REMEDIES.get(error.errno or 0, ())
        raise UserError(key, folder, f"cannot be written: {error.strerror}", mend) from None


def is_writable(folder: Path) -> bool:
    """Whether files can be made in ``folder``."""
    with suppress(UserError):
        check_writable(folder)
        return True
    return False


def check_file(path: Path, key: str) -> None:
    """Raise UserError where the file that ``key`` names is a folder, or its folder cannot be made or written in."""
    if path.is_dir():
        raise UserError(key, path, "is a folder", "name a file in it")
    check_writable(path.parent, key)


CHECKSUM = "crc32"
"""The key of a CRC-32 over the object's canonical JSON (sorted keys)."""


def encode(values: Mapping[str, Any], indent: int | None = None) -> str:
    """An object as the JSON text of a file, with its checksum."""
    return json.dumps({**values, CHECKSUM: _checksum(values)}, indent=indent)


def decode(text: bytes | str) -> dict[str, Any]:
    """The object in what `encode` wrote, without its checksum. Raises ValueError with the reason for anything else."""
    values = parsed(text)
    checksum = values.pop(CHECKSUM, None)
    if checksum is None:
        raise ValueError("it has no checksum")
    if checksum != _checksum(values):
        raise ValueError("its checksum does not match")
    return values


def parsed(text: bytes | str) -> dict[str, Any]:
    """The JSON object in a text; ValueError for anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


MOST = 1 << 53  # whole numbers below it are exact as floats too
Kind = Callable[[Any], bool]  # whether a value is of a kind


def check(values: Any, kinds: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> None:
    """Raise ValueError, naming the key, where one of ``kinds`` is missing or one of either is of another kind."""
    if not isinstance(values, Mapping):
        raise ValueError("it is no table")
    for key, is_kind in {**kinds, **(optional or {})}.items():
        if key not in values:
            if key in kinds:
                raise ValueError(f"it has no {key}")
            continue
        try:
            fits = is_kind(values[key])
        except ValueError as error:  # of a table within
            raise ValueError(f"in its {key}, {error}") from None
        if not fits:
            raise ValueError(f"its {key} is {short(values[key])}")


def check_format(file: Path, found: Any, reads: int) -> None:
    """Raise UserError where ``found``, the format of a file, is not the one that this version ``reads``."""
    if found != reads:
        mend = "upgrade unstir" if is_count(found) and found > reads else "train anew, or use the version that wrote it"
        raise UserError("", file, f"has format {short(found)}, this version reads {reads}", mend)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on that a float holds exactly."""
    return type(value) is int and 0 <= value < MOST


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return (type(value) is int and abs(value) < MOST) or (type(value) is float and math.isfinite(value))


def is_figure(value: Any) -> bool:
    """Whether a value is what a measurement gives: a number, infinite or NaN too where it diverged, or None."""
    return value is None or type(value) is float or is_number(value)


def is_figures(value: Any) -> bool:
    """Whether a value is a list of figures without None, or None."""
    return value is None or (isinstance(value, list) and None not in value and all(map(is_figure, value)))


def is_text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def check_new(folder: Path) -> None:
    """Raise UserError where ``folder`` holds something, is a link, a mount or the present one, or cannot be made."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("out", folder, "is not empty" if folder.is_dir() else "is a file", "name a new folder")
    if folder.exists() and (folder.is_symlink() or folder.is_mount() or folder.samefile(".")):
        raise UserError("out", folder, "cannot be replaced by a folder that is whole", "name one that does not exist")
    check_writable(folder, "out")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write in, which gets its name when the block ends well and is gone otherwise.

    Raises UnwrittenError, which names ``folder``, where it cannot be written. What a killed process left half written
    of a folder of this name is removed first.
    """
    parent = make_folder(folder.absolute().parent)
    partial = folder
    try:
        with ExitStack() as stack:
            with writing(folder):
                partial = stack.enter_context(staging(parent, folder.name[:50]))
            yield partial
            with writing(partial):
                partial.replace(folder)
    except UnwrittenError as error:
        path = Path(error.filename)
        place = folder / path.relative_to(partial) if path.is_relative_to(partial) else path
        raise UnwrittenError(error.errno, error.strerror, str(place)) from None
