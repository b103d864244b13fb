"""What names a run: its folder, or a model that comes trained inside the package.

Such a model is read there. What is made of it goes to ./NAME/, for the package may be read-only.
"""

from pathlib import Path

from unstir.errors import UserError
from unstir.runs.toml import is_run

FOLDER = Path(__file__).parents[1] / "models"
PREFIX = "shipped:"
"""Before a name: the model of the package, whatever run has that name too."""


def names() -> tuple[str, ...]:
    """The names of the models, in order."""
    return tuple(sorted(file.parent.name for file in FOLDER.glob("*/config.toml")))


def located(run: str | Path) -> Path | None:
    """The folder of the model NAME or shipped:NAME, None for others; UserError where none or a run has that name."""
    text = str(run)
    name = text.removeprefix(PREFIX)
    if name == text and Path(name).name != name:
        return None  # a path
    if name not in (known := names()):
        if name == text:
            return None
        raise UserError("", text, "is no model that comes with unstir", f"name one of {', '.join(known)}")
    other = next((path for path in (Path("runs", name), Path(name)) if is_run(path)), None)
    if name == text and other is not None:
        typed = other if len(other.parts) > 1 else other.resolve()
        raise UserError("", text, "is a run and a model that comes with unstir", f"name {typed} or {PREFIX}{name}")
    return FOLDER / name


def reference(run: str | Path) -> str:
    """A run as settings keep it: shipped:NAME, or its absolute folder. UserError as `located`."""
    folder = located(run)
    return str(Path(run).resolve()) if folder is None else f"{PREFIX}{folder.name}"


def names_run(text: str | Path) -> bool:
    """Whether a text names a run: its folder, or a model that comes with unstir. UserError as `located`."""
    return is_run(Path(text)) or located(text) is not None


def run_and_step(text: str) -> tuple[str, int | None]:
    """The folder and the saved step of "RUN@STEP"; the whole text and None where it has no step or is a path itself."""
    folder, at, step = text.rpartition("@")
    if at and step.isdecimal() and not Path(text).exists():
        return folder, int(step)
    return text, None
