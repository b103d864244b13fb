"""What was named in the place of a run, in words: images, a file of ONNX, a part of a run, the folder of several.

And where a run was to go on: which runs are beside a name that is none's.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from unstir.data import is_store
from unstir.data.recognised import holds_images, refuse_onnx
from unstir.errors import ALMOST, UserError, nearest


def around(path: Path) -> Path | None:
    """The run in which a path lies; None where it lies in none."""
    return next((parent for parent in path.parents if _is_run(parent)), None)


def refuse(path: Path) -> None:
    """Raise UserError for a path that is no run: what it is, and what to name or type."""
    if not path.exists():
        near = nearest(path.name, runs := {run.name: run for run in beside(path)}, ALMOST)
        raise UserError(
            "", path, "does not exist", f"{(f'did you mean {runs[near]}?' if near else 'name the folder of a run')}"
        )
    if run := around(path):
        raise UserError("", path, f"lies in the run {run}", f"name {run}")
    refuse_onnx(path, "run")
    if is_store(path):
        raise UserError("", path, "is a packed store and no run", f"to see what it holds: unstir data inspect {path}")
    if path.is_dir() and (inside := sorted(each for each in path.iterdir() if _is_run(each))):
        raise UserError("", path, "holds no run itself", f"name one in it, such as {inside[0]}")
    if holds_images(path):
        compare, learn = f"unstir evaluate --images {path} --store STORE", f"unstir train RECIPE --data.source {path}"
        raise UserError(
            "",
            path,
            "holds images and no run",
            f"compare them with those of a store: {compare}; or train on them: {learn}",
        )
    if path.is_file():
        raise UserError("", path, "is a file and holds no run", "name the folder of one")
    raise UserError("", path, "holds no run (config.toml is missing)", "name the folder of one")


NUMBER = re.compile("[0-9]+")


def beside(path: Path) -> list[Path]:
    """The runs in the folder of a path, or where that is not there, in the one whose name is most like its name."""
    folder = path.parent
    if not folder.exists() and (near := nearest(folder.name, (each.name for each in _in(folder.parent)), ALMOST)):
        folder = folder.parent / near
    return sorted(each for each in _in(folder) if _is_run(each))


def refuse_near(path: Path, anew: str) -> None:
    """Raise UserError where ``path``, at which a run would begin, is named almost as a run beside it.

    Names whose numbers differ, as of a series, are not almost the same. ``anew`` is the command that begins it.
    """
    runs = {run.name: run for run in beside(path) if NUMBER.findall(run.name) == NUMBER.findall(path.name)}
    if near := nearest(path.name, runs, ALMOST):
        raise UserError(
            "", path, "holds no run", f"did you mean {runs[near]}? To begin a new run there, name its recipe: {anew}"
        )


def _in(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from folder.iterdir()


def _is_run(path: Path) -> bool:
    with suppress(OSError):  # a folder that may not be looked into is none that is meant
        return (path / "config.toml").is_file() and (path / "data.json").is_file()  # config.toml alone is a usual name
    return False
