"""Pictures with a sidecar, NAME.json with the settings that made NAME.png; no picture without one is replaced."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.data.disk import sync_folder
from unstir.errors import UserError
from unstir.runs.files import check_file, made_by, make_folder, replacing, save_png, words_of, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

UNNAMED = "torch", "threads", "compile", "run"  # not in its name: they change pixels by rounding alone, or not
RECORD = "command", "unstir", "cost"  # what is said beside settings and is none of them


def digest(settings: dict[str, Any]) -> str:
    """Six hexadecimal digits for a file's name: the same for the same settings, on any machine."""
    of_name = {key: value for key, value in settings.items() if key not in UNNAMED}
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


def is_numbered(path: Path, picture: Path) -> bool:
    """Whether a file has the name of a single result of a picture."""
    return bool(re.fullmatch(re.escape(picture.stem) + r"-\d+\.png", path.with_suffix(".png").name))


def singles_of(picture: Path) -> list[Path]:
    """The files that say that they are single results of a picture, and have no sidecar of their own."""
    files = [path for path in picture.parent.glob("*.png") if is_numbered(path, picture)]
    return [path for path in files if not sidecar_of(path).exists() and _is_single(path, picture)]


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

    The ``singles`` are its single results, in files of their own; older ones are removed (`singles_of`), unless none
    are given for the same settings. At no time does a picture have the sidecar of another: an older one goes just
    before its picture is replaced. Raises UnwrittenError where a file cannot be written.
    """
    folder, sidecar, claim = make_folder(picture.parent), sidecar_of(picture), _claim(picture)
    same = json.loads(json.dumps(settings)).items() <= (_read(sidecar) or {}).items()
    older, files = singles_of(picture) if singles or not same else [], numbered(picture, len(singles))
    write_text(claim, "")
    try:
        with replacing(picture) as partial:
            write(partial)
            sidecar.unlink(missing_ok=True)
            sync_folder(folder)
        for path, image in zip(files, singles, strict=True):
            save_png(path, image, **_words(path, picture))
        for path in set(older) - set(files):
            path.unlink(missing_ok=True)
        write_text(sidecar, json.dumps({**made_by(command), **settings, **measured}, indent=1) + "\n")
    finally:
        if sidecar.exists() or not picture.exists():
            claim.unlink(missing_ok=True)


def _claim(picture: Path) -> Path:
    """The file that says a picture is being written by unstir."""
    return picture.with_name(f".{picture.name}.unfinished")


def _words(single: Path, picture: Path) -> dict[str, str]:
    return {"single": ascii(f"{single.name} of {picture.name}")}


def _is_single(path: Path, picture: Path) -> bool:
    with suppress(Exception):  # decoders raise anything at all on damaged bytes
        return path.is_file() and _words(path, picture).items() <= words_of(path).items()
    return False


def _read(file: Path) -> dict[str, Any] | None:
    """The settings in a sidecar; None where the file is none."""
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) and str(settings.get("command", "")).startswith("unstir ") else None
