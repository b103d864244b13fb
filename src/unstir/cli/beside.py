"""Pictures with the settings that made them beside them: NAME.png and NAME.json."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unstir
from unstir.errors import UserError
from unstir.runs.files import make_folder, replacing, sync_folder, write_text
from unstir.runs.kinds import is_count
from unstir.runs.writable import check_writable

if TYPE_CHECKING:
    from PIL.Image import Image

MACHINE = "torch", "threads"
"""Settings that a picture's name does not carry: they change its pixels by rounding alone."""

MOST_SINGLES = 10_000
"""Single results of one picture."""


def digest(settings: dict[str, Any]) -> str:
    """Six hexadecimal digits for a file's name: the same for the same settings, on any machine."""
    of_name = {key: value for key, value in settings.items() if key not in MACHINE}
    return hashlib.sha256(json.dumps(of_name, sort_keys=True).encode()).hexdigest()[:6]


def as_stem(text: str) -> str:
    """A text as part of a file's name: what is no letter, digit, - or _ becomes -."""
    return re.sub(r"[^\w-]+", "-", text)


def short(stem: str) -> str:
    """A file's stem, cut so that a name made of two of them is one that file systems take."""
    return stem[:60]


def check(
    picture: Path, singles: Sequence[Path] = (), option: str = "--out", suffixes: Sequence[str] = (".png",)
) -> None:
    """Raise UserError where a picture cannot be written, or would replace what is not ours.

    Ours is a picture that has settings beside it which unstir wrote; so are as many ``singles`` as these say.
    """
    if picture.suffix.lower() not in suffixes:
        raise UserError(f"{option} {picture} would be a picture; name a file that ends in {' or '.join(suffixes)}")
    check_place(picture, option)
    beside = settings_file(picture)
    ours = _read(beside)
    if beside.exists() and ours is None:
        raise UserError(f"{beside}, where the settings go, is not of unstir; name another file with {option}")
    count = ours.get("singles", 0) if ours else 0
    known = {picture, *numbered(picture, count if is_count(count) and count <= MOST_SINGLES else 0)} if ours else set()
    if _claim(picture).exists():  # a command that failed or was killed has left them without settings
        known |= {picture, *singles}
    if taken := [path for path in (picture, *singles) if path.exists() and path not in known]:
        raise UserError(f"{taken[0]} is there and has no settings of unstir beside it; name another with {option}")


def check_place(path: Path, option: str) -> None:
    """Raise UserError where a file cannot be written: it is a folder, or its folder cannot be made or written in."""
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file in it")
    check_writable(path.parent, f"name another with {option}")


def check_png(path: Path, option: str) -> None:
    """Raise UserError where a file is no PNG in a folder that exists."""
    if path.suffix.lower() != ".png" or path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option} {path} would be a PNG in a folder that exists; name a file that ends in .png")


def settings_file(picture: Path) -> Path:
    """Where the settings of a picture lie: NAME.json beside NAME.png, NAME.webp.json beside NAME.webp."""
    return picture.with_suffix(".json") if picture.suffix.lower() == ".png" else Path(f"{picture}.json")


def numbered(picture: Path, count: int) -> list[Path]:
    """The files of the single results of a picture."""
    return [picture.with_name(f"{picture.stem}-{number}.png") for number in range(count)]


def png(image: "Image") -> Callable[[Path], None]:
    """What writes an image as a PNG."""
    return lambda path: image.save(path, format="png")


def save(picture: Path, write: Callable[[Path], None], command: str, settings: dict[str, Any], **measured: Any) -> None:
    """Write the picture and, beside it, the ``command`` and settings that made it with what was ``measured``.

    At no time does a picture have settings that are not its own: those of an older one go just before it is replaced.
    A picture that was left without any, by a kill or a full disk, is known for ours by an empty file. Raises UserError
    where either cannot be written.
    """
    folder, beside, claim = make_folder(picture.parent), settings_file(picture), _claim(picture)
    made_by = {"command": command, "unstir": unstir.__version__}
    write_text(claim, "")
    try:
        with replacing(picture) as partial:
            write(partial)
            beside.unlink(missing_ok=True)
            sync_folder(folder)
        write_text(beside, json.dumps({**made_by, **settings, **measured}, indent=1) + "\n")
    finally:
        if beside.exists() or not picture.exists():
            claim.unlink(missing_ok=True)


def _claim(picture: Path) -> Path:
    """The file that says a picture is being written by unstir."""
    return picture.with_name(f".{picture.name}.unfinished")


def _read(file: Path) -> dict[str, Any] | None:
    """The settings in a file of ours; None where there is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and str(found.get("command", "")).startswith("unstir ") else None
