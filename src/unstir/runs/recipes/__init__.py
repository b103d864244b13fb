"""The recipes that come with the package: TOML files whose first line says what each is for."""

import dataclasses
from importlib import resources
from pathlib import Path

from unstir.errors import UserError
from unstir.runs import toml
from unstir.runs.config import Config

DEFAULT = "digits"


def sentences() -> dict[str, str]:
    """The name of each recipe, the default first, with what it is for."""
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".toml")]
    first_lines = {file.name.removesuffix(".toml"): file.read_text("utf-8").splitlines()[0] for file in files}
    lines = {name: line.lstrip("# ") for name, line in sorted(first_lines.items())}
    return {DEFAULT: lines.pop(DEFAULT), **lines}


def load(name: str) -> Config:
    """The config of a recipe, or of a TOML file given by its path. Raises UserError where it is neither."""
    if name in sentences():
        with resources.as_file(resources.files(__name__) / f"{name}.toml") as path:
            return dataclasses.replace(toml.load(path), recipe=name)
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise UserError(f"{name!r} is neither a recipe ({', '.join(sentences())}) nor a TOML file that exists")
    return dataclasses.replace(toml.load(path), recipe=path.stem)
