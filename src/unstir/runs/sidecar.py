"""Pictures with a sidecar, NAME.json with the settings that made NAME.png; no picture without one is replaced."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unstir
from unstir.data.disk import sync_folder
from unstir.errors import UserError
from unstir.runs.files import check_file, make_folder, replacing, save_png, write_text
from unstir.runs.kinds import is_count

if TYPE_CHECKING:
    from PIL.Image import Image

MACHINE = (
    "torch",
    "threads",
    "compile",
)  # settings that a picture's name does not carry: they change its pixels by rounding alone
RECORD = "command", "unstir", "cost"  # what is said beside settings and is none of them
MOST_SINGLES = 10_000  # single results of one picture


def made_by(command: str) -> dict[str, Any]:
    """What every file of settings begins with: the ``command`` that makes such a result, and the version of unstir."""
    return {"command": command, "unstir": unstir.__version__}


def digest(settings: dict[str, Any]) -> str:
    """Six hexadecimal digits for a file's name: the same for the same settings, on any machine."""
    of_name = {key: value for key, value in settings.items() if key not in MACHINE}
    return hashlib.sha256(json.dumps(of_name, sort_keys=True).encode()).hexdigest()[:6]


def check(
    picture: Path, singles: Sequence[Path] = (), option: str = "--out", suffixes: Sequence[str] = (".png",)
) -> None:
    """Raise UserError where a picture, named with ``option``, cannot be written, or would replace one without sidecar.

    As many ``singles`` as the sidecar says are its own too.
    """
    if picture.suffix.lower() not in suffixes:
        raise UserError(
            f"{option} {picture} is no name for the picture; name a file that ends in {' or '.join(suffixes)}"
        )
    check_file(picture, option)
    sidecar = sidecar_of(picture)
    ours = _read(sidecar)
    if sidecar.exists() and ours is None:
        raise UserError(f"{sidecar}, where the settings go, is not of unstir; name another file with {option}")
    known = {picture, *singles_of(picture)} if ours or _claim(picture).exists() else set()
    if taken := [path for path in (picture, *singles) if path.exists() and path not in known]:
        raise UserError(f"{taken[0]} is there and has no sidecar of unstir; name another with {option}")


def sidecar_of(picture: Path) -> Path:
    """The file of a picture's settings: NAME.json for NAME.png, NAME.webp.json for NAME.webp."""
    return picture.with_suffix(".json") if picture.suffix.lower() == ".png" else Path(f"{picture}.json")


def numbered(picture: Path, count: int) -> list[Path]:
    """The files of the single results of a picture."""
    return [picture.with_name(f"{picture.stem}-{number}.png") for number in range(count)]


def singles_of(picture: Path) -> list[Path]:
    """The files of the single results that a picture has, by its sidecar or by what a command that was killed left."""
    with suppress(OSError, ValueError):
        return numbered(picture, _checked(int(_claim(picture).read_text())))
    return numbered(picture, _checked((_read(sidecar_of(picture)) or {}).get("singles")))


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

    The ``singles`` are its single results, files of their own; those of an older picture that it replaces are removed,
    but where none are given for the same settings, which leaves them. At no time does a picture have the sidecar of
    another: an older one goes just before its picture is replaced. One that a kill or a full disk left without is known
    by a file that counts its singles. Raises UserError where a file cannot be written.
    """
    folder, sidecar, claim = make_folder(picture.parent), sidecar_of(picture), _claim(picture)
    older, there = singles_of(picture), _read(sidecar) or {}
    if not singles and older and json.loads(json.dumps(settings)).items() <= there.items():
        older, measured = [], {**measured, "singles": len(older)}
    elif singles:
        measured["singles"] = len(singles)
    write_text(claim, str(max(len(older), measured.get("singles", 0))))
    try:
        with replacing(picture) as partial:
            write(partial)
            sidecar.unlink(missing_ok=True)
            sync_folder(folder)
        for path, image in zip(numbered(picture, len(singles)), singles, strict=True):
            save_png(path, image)
        for path in older[len(singles) :]:
            path.unlink(missing_ok=True)
        write_text(sidecar, json.dumps({**made_by(command), **settings, **measured}, indent=1) + "\n")
    finally:
        if sidecar.exists() or not picture.exists():
            claim.unlink(missing_ok=True)


def _claim(picture: Path) -> Path:
    """The file that says a picture is being written by unstir."""
    return picture.with_name(f".{picture.name}.unfinished")


def _checked(count: Any) -> int:
    """A number of single results; 0 for what is none."""
    return count if is_count(count) and count <= MOST_SINGLES else 0


def _read(file: Path) -> dict[str, Any] | None:
    """The settings in a sidecar; None where the file is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and str(found.get("command", "")).startswith("unstir ") else None
