"""Pictures with a sidecar, NAME.json with the settings that made NAME.png; no picture without one is replaced."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unstir
from unstir.data.disk import sync_folder
from unstir.errors import UserError
from unstir.runs.files import check_file, make_folder, replacing, write_text
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
    count = (ours or {}).get("singles", 0)
    known = {picture, *numbered(picture, count if is_count(count) and count <= MOST_SINGLES else 0)} if ours else set()
    if _claim(picture).exists():  # a command that failed or was killed has left them without settings
        known |= {picture, *singles}
    if taken := [path for path in (picture, *singles) if path.exists() and path not in known]:
        raise UserError(f"{taken[0]} is there and has no sidecar of unstir; name another with {option}")


def sidecar_of(picture: Path) -> Path:
    """The file of a picture's settings: NAME.json for NAME.png, NAME.webp.json for NAME.webp."""
    return picture.with_suffix(".json") if picture.suffix.lower() == ".png" else Path(f"{picture}.json")


def numbered(picture: Path, count: int) -> list[Path]:
    """The files of the single results of a picture."""
    return [picture.with_name(f"{picture.stem}-{number}.png") for number in range(count)]


def png(image: "Image") -> Callable[[Path], None]:
    """What writes an image as a PNG."""
    return lambda path: image.save(path, format="png")


def save(picture: Path, write: Callable[[Path], None], command: str, settings: dict[str, Any], **measured: Any) -> None:
    """Write the picture and its sidecar: the ``command`` and settings that made it, and what was ``measured``.

    At no time does a picture have the sidecar of another: an older one goes just before its picture is replaced. One
    that a kill or a full disk left without is known by an empty file. Raises UserError where either cannot be written.
    """
    folder, sidecar, claim = make_folder(picture.parent), sidecar_of(picture), _claim(picture)
    write_text(claim, "")
    try:
        with replacing(picture) as partial:
            write(partial)
            sidecar.unlink(missing_ok=True)
            sync_folder(folder)
        write_text(sidecar, json.dumps({**made_by(command), **settings, **measured}, indent=1) + "\n")
    finally:
        if sidecar.exists() or not picture.exists():
            claim.unlink(missing_ok=True)


def _claim(picture: Path) -> Path:
    """The file that says a picture is being written by unstir."""
    return picture.with_name(f".{picture.name}.unfinished")


def _read(file: Path) -> dict[str, Any] | None:
    """The settings in a sidecar; None where the file is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and str(found.get("command", "")).startswith("unstir ") else None
