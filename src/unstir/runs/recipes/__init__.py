"""The recipes that come with the package: TOML files whose first line says what each is for."""

from importlib import resources
from pathlib import Path
from typing import Any

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
    """The config of a recipe, or of a TOML file given by its path.

    What a file leaves out comes from the recipe that its key ``recipe`` names, or else from the defaults of `Config`.
    Raises UserError where ``name`` is neither, or where the file is wrong.
    """
    if name in sentences():
        return toml.from_dict({**_tables(name), "recipe": name}, f"recipe {name}")
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise UserError(f"{name!r} is neither a recipe ({', '.join(sentences())}) nor a TOML file that exists")
    own = toml.read(path)
    base = own.get("recipe", "")
    if not isinstance(base, str) or (base and base not in sentences()):
        raise UserError(f"{path}: recipe={base!r} is unknown; name one of {', '.join(sentences())}, or leave it out")
    return toml.from_dict(_over_base(own), str(path))


def _tables(name: str) -> dict[str, Any]:
    """The tables of a recipe of the package, its base filled in."""
    with resources.as_file(resources.files(__name__) / f"{name}.toml") as path:
        return _over_base(toml.read(path))


def _over_base(own: dict[str, Any]) -> dict[str, Any]:
    merged = _tables(own["recipe"]) if own.get("recipe") else {}
    for key, value in own.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both_tables else value
    return merged
