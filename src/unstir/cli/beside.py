"""Pictures with the settings that made them beside them: NAME.png and NAME.json."""

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.errors import UserError
from unstir.runs.files import make_folder, replacing, sync_folder, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

MACHINE = "torch", "threads"
"""Settings that a picture's name does not carry: they change its pixels by rounding alone."""


def digest(settings: dict[str, Any]) -> str:
    """Six hexadecimal digits for a file's name: the same for the same settings, on any machine."""
    of_name = {key: value for key, value in settings.items() if key not in MACHINE}
    return hashlib.sha256(json.dumps(of_name, sort_keys=True).encode()).hexdigest()[:6]


def short(stem: str) -> str:
    """A file's stem, cut so that a name made of two of them is one that file systems take."""
    return stem[:60]


def check(picture: Path, option: str = "--out") -> None:
    """Raise UserError where a picture cannot be written: another suffix, a folder that is none, a JSON not of ours."""
    if picture.suffix.lower() != ".png":
        raise UserError(f"{option} {picture} would be a PNG picture; name a file that ends in .png")
    if picture.is_dir():
        raise UserError(f"{option} {picture} is a folder; name a file in it")
    there = next(parent for parent in picture.parents if parent.exists())
    if not there.is_dir():
        raise UserError(f"{picture} cannot be made, for {there} is a file; name another with {option}")
    beside = picture.with_suffix(".json")
    if beside.exists() and not _is_ours(beside):
        raise UserError(f"{beside}, where the settings go, is not of unstir; name another file with {option}")


def save(picture: Path, image: "Image", command: str, settings: dict[str, Any], **measured: Any) -> None:
    """Write the picture and, beside it, the ``command`` and settings that made it with what was ``measured``.

    At no time does a picture have settings that are not its own: those of an older one go just before it is replaced.
    Raises UserError where either cannot be written.
    """
    folder, beside = make_folder(picture.parent), picture.with_suffix(".json")
    finite = {key: None if value == math.inf else value for key, value in measured.items()}
    with replacing(picture) as partial:
        image.save(partial, format="png")
        beside.unlink(missing_ok=True)
        sync_folder(folder)
    write_text(beside, json.dumps({"command": command, **settings, **finite}, indent=1) + "\n")


def _is_ours(file: Path) -> bool:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and str(found.get("command", "")).startswith("unstir ")
