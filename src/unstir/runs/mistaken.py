"""Whether a path that was named in the place of a run lies in one."""

from contextlib import suppress
from pathlib import Path

from unstir.errors import UserError


def around(path: Path) -> Path | None:
    """The run in which a path lies; None where it lies in none."""
    return next((parent for parent in path.parents if _is_run(parent)), None)


def refuse(path: Path) -> None:
    """Raise UserError for a path that is no run."""
    if not path.exists():
        raise UserError("", path, "does not exist", "name the folder of a run")
    if run := around(path):
        raise UserError("", path, f"lies in the run {run}", f"name {run}")
    raise UserError("", path, "holds no run (config.toml is missing)", "name the folder of one")


def _is_run(path: Path) -> bool:
    with suppress(OSError):  # a folder that may not be looked into is none that is meant
        return (path / "config.toml").is_file() and (path / "data.json").is_file()  # config.toml alone is a usual name
    return False
