"""The recipes that come with the package: TOML files whose first line says what each is for."""

from importlib import resources
from pathlib import Path
from typing import Any

from unstir.errors import UserError, nearest, quoted
from unstir.nn.config import merged
from unstir.parts import allow, names_of
from unstir.runs import toml
from unstir.runs.config import PARTS, Config

DEFAULT = "mnist"
PHOTOS = "photos"
"""The recipe of which `train.photos` chooses settings for the images and the minutes there are."""
NEEDED = ("data", "source"), ("model", "channels")
"""What a file that names no recipe must say itself: the defaults would be a network of 35.7 M parameters."""


def sentences() -> dict[str, str]:
    """The name of each recipe, the default first, with what it is for."""
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".toml")]
    first_lines = {file.name.removesuffix(".toml"): file.read_text("utf-8").splitlines()[0] for file in files}
    lines = {name: line.lstrip("# ") for name, line in sorted(first_lines.items())}
    return {DEFAULT: lines.pop(DEFAULT), **lines}


def load_recipe(name: str) -> Config:
    """The config of a recipe, or of a TOML file given by its path.

    What a file leaves out comes from the recipe that its key ``recipe`` names. A file without that key must say
    which images and how large a network, ``data.source`` and ``model.channels``; the rest are the defaults of `Config`.
    The modules of parts that a file names may be imported (`unstir.parts`), unless it is the config.toml of a run.
    Raises UserError where ``name`` is neither, or where the file is wrong.
    """
    names, path = sentences(), Path(name)
    known = ", ".join(names)
    if name in names:
        return toml.from_dict({**_tables(name), "recipe": name}, f"recipe {name}")
    if toml.is_run(path):
        raise UserError("", name, "is a run and no recipe", f"go on with it: unstir train --out {quoted(name)}")
    if path.suffix != ".toml" or not path.is_file():
        near = nearest(name, names) if len(path.parts) == 1 else None
        allowed = f"is neither a recipe ({known}) nor a TOML file that exists"
        raise UserError("", name, allowed, f"did you mean {near}?" if near else ())
    own = toml.read(path)
    base = own.get("recipe", "")
    if not isinstance(base, str) or (base and base not in names):
        raise UserError("recipe", base, f"must be one of {known}", {"recipe": None}).at(path)
    config = toml.from_dict(_over_base(own), str(path))
    if not (path.parent / "data.json").is_file():  # a file of the user's own, and not of a run
        for name in PARTS.keys() & (values := toml.flat(config)).keys():
            for part in values[name] if isinstance(values[name], list) else [values[name]]:
                allow(part)
    left_out = [f"{section}.{key}" for section, key in NEEDED if key not in own.get(section, {})]
    if not config.model.is_unet and "model.channels" in left_out:
        left_out.remove("model.channels")
    if left_out and not base:
        missing = f"names no recipe to fill what it leaves out, and has no {' and no '.join(left_out)}"
        others = f'begin it with recipe = "{DEFAULT}" (or another of {known}), or give these too'
        raise UserError("", path, missing, others)
    return config


def run_folder(recipe: str, out: str | Path | None) -> Path:
    """The folder of a run: ``out``, or without it runs/NAME after the recipe."""
    return Path(out) if out else Path("runs") / Path(recipe or DEFAULT).stem


def settings(recipe: str, folder: Path) -> Config:
    """The config of ``recipe``, or for "" that of the run in ``folder``, or of the default recipe where is none.

    A run of `PHOTOS` goes on with its own config, for its settings were chosen when it began.
    """
    if recipe in ("", PHOTOS) and toml.is_run(folder):
        from unstir.runs.run import Run  # which needs torch

        config = Run.open(folder).config
        if recipe in ("", config.recipe):
            return config
    return load_recipe(recipe or DEFAULT)


def _tables(name: str) -> dict[str, Any]:
    with resources.as_file(resources.files(__name__) / f"{name}.toml") as path:
        return _over_base(toml.read(path))


def _over_base(tables: dict[str, Any]) -> dict[str, Any]:
    return over(_tables(tables["recipe"]) if tables.get("recipe") else {}, tables)


def over(base: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a config with others as their base; where they name another part, its options are theirs alone."""
    result = dict(base)
    for section, values in tables.items():
        below = base.get(section, {})
        if not (isinstance(values, dict) and isinstance(below, dict)):
            result[section] = values
        elif section == "model":
            result[section] = merged(below, values)
        else:
            result[section] = _over_section(section, below, values)
    return result


def _over_section(section: str, below: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    default, result = getattr(Config(), section, None), below | values
    for key, (_, options) in PARTS.items():
        name = key.removeprefix(f"{section}.")
        if name != key and options in below:
            was = below.get(name, getattr(default, name, ""))
            kept = below[options] if (now := values.get(name, was)) == was else {}
            if isinstance(now, list):  # several parts, with a table each
                kept = {part: table for part, table in below[options].items() if part in names_of(now)}
            result[options] = kept | values.get(options, {})
    return result
