"""Pictures with a sidecar, NAME.json with the settings that made NAME.png; no picture without one is replaced."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.data.disk import file_sha256, sync_folder
from unstir.errors import UserError
from unstir.runs.files import check_file, is_text, made_by, make_folder, replacing, write_bytes, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

MACHINE = "torch", "threads", "compile"  # not in a picture's name: they change its pixels by rounding alone
RECORD = "command", "unstir", "cost"  # what is said beside settings and is none of them


def digest(settings: dict[str, Any]) -> str:
    """Six hexadecimal digits for a file's name: the same for the same settings, on any machine."""
    of_name = {key: value for key, value in settings.items() if key not in MACHINE}
    return hashlib.sha256(json.dumps(of_name, sort_keys=True).encode()).hexdigest()[:6]


def check(picture: Path, singles: Sequence[Path] = (), key: str = "out", suffixes: Sequence[str] = (".png",)) -> None:
    """Raise UserError where a picture, ``key``, cannot be written, or replaces one, no own single, without sidecar."""
    if picture.suffix.lower() not in suffixes:
        raise UserError(key, picture, f"must end in {' or '.join(suffixes)}")
    check_file(picture, key)
    sidecar = sidecar_of(picture)
    ours = _read(sidecar)
    if sidecar.exists() and ours is None:
        raise UserError(key, picture, f"has its settings in {sidecar}, which is not of unstir", "name another file")
    known = {picture, *singles_of(picture)} if ours or _claim(picture).exists() else set()
    if taken := [path for path in (picture, *singles) if path.exists() and path not in known]:
        beside = sidecar_of(taken[0])
        reason = f"is a picture of its own, with {beside.name}" if beside.exists() else "has no sidecar of unstir"
        raise UserError(key, taken[0], f"is there and {reason}", "name another")


def sidecar_of(picture: Path) -> Path:
    """The file of a picture's settings: NAME.json for NAME.png, NAME.webp.json for NAME.webp."""
    return picture.with_suffix(".json") if picture.suffix.lower() == ".png" else Path(f"{picture}.json")


def numbered(picture: Path, count: int) -> list[Path]:
    """The files of the single results of a picture."""
    return [picture.with_name(f"{picture.stem}-{number}.png") for number in range(count)]


def singles_of(picture: Path) -> list[Path]:
    """The files that are single results of a picture as they were written: not those changed since or with sidecars."""
    hashes = set(known := _hashes(picture))
    files = [path for path in numbered(picture, len(known)) if path.is_file() and not sidecar_of(path).exists()]
    return [path for path in files if file_sha256(path) in hashes]


def png(image: "Image") -> Callable[[Path], None]:
    """What writes an image as a PNG."""
    return lambda path: image.save(path, format="png")


def save(
    picture: Path,
    write: Callable[[Path], None],
    command: str,
    settings: dict[str, Any],
    singles: "Sequence[Image]" = (),
    **measured: Any,
) -> None:
    """Write the picture and its sidecar: the ``command`` and settings that made it, and what was ``measured``.

    The ``singles`` are its single results, files of their own, of which the sidecar has the SHA-256. Those of an older
    picture that it replaces are removed (`singles_of`), unless none are given for the same settings. At no time does a
    picture have the sidecar of another: an older one goes just before its picture is replaced. Raises UnwrittenError
    where a file cannot be written.
    """
    folder, sidecar, claim = make_folder(picture.parent), sidecar_of(picture), _claim(picture)
    older, known, contents = singles_of(picture), _hashes(picture), [_as_png(image) for image in singles]
    files, hashes = numbered(picture, len(singles)), [hashlib.sha256(content).hexdigest() for content in contents]
    write_text(claim, json.dumps([*known, *hashes]))
    if not singles and json.loads(json.dumps(settings)).items() <= (_read(sidecar) or {}).items():
        older, hashes = [], known
    if hashes:
        measured["singles"] = hashes
    try:
        with replacing(picture) as partial:
            write(partial)
            sidecar.unlink(missing_ok=True)
            sync_folder(folder)
        for path, content in zip(files, contents, strict=True):
            write_bytes(path, content)
        for path in set(older) - set(files):
            path.unlink(missing_ok=True)
        write_text(sidecar, json.dumps({**made_by(command), **settings, **measured}, indent=1) + "\n")
    finally:
        if sidecar.exists() or not picture.exists():
            claim.unlink(missing_ok=True)


def _claim(picture: Path) -> Path:
    """The file that says a picture is being written by unstir."""
    return picture.with_name(f".{picture.name}.unfinished")


def _as_png(image: "Image") -> bytes:
    file = BytesIO()
    image.save(file, format="png")
    return file.getvalue()


def _hashes(picture: Path) -> list[str]:
    """The SHA-256 of each single result, from the picture's sidecar or what a killed command left, its `_claim`."""
    claim = _claim(picture)
    with suppress(OSError, ValueError, RecursionError):
        sidecar = _read(sidecar_of(picture)) or {}
        hashes = json.loads(claim.read_bytes()) if claim.exists() else sidecar.get("singles")
        return hashes if isinstance(hashes, list) and all(map(is_text, hashes)) else []
    return []


def _read(file: Path) -> dict[str, Any] | None:
    """The settings in a sidecar; None where the file is none."""
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) and str(settings.get("command", "")).startswith("unstir ") else None
