"""Whether settings (of config.toml, of a checkpoint, asked for) are those of one run, and a store is its data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from unstir.data import Store, is_store
from unstir.errors import UserError, short
from unstir.progress import Say, unsaid
from unstir.runs import toml
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import MAY_CHANGE, Config

if TYPE_CHECKING:
    from unstir.runs.run import Run

SHOWN = 8
"""Differences that a message names at most."""


def compare(saved: Config, asked: Config) -> dict[str, Any]:
    """What ``asked`` would change in a run, by dotted keys; UserError for one that must not change."""
    old, new = toml.flat(saved), toml.flat(asked)
    changed = {key: new.get(key) for key in _different(old, new)}
    if fixed := [key for key in changed if key not in MAY_CHANGE]:
        said = _shortened([f"{key} is {old.get(key)!r} in the run, {new.get(key)!r} was asked" for key in fixed])
        began = f"the run began with recipe {saved.recipe or 'none'}, {asked.recipe} was asked, but "
        raise UserError(
            f"{began if asked.recipe != saved.recipe else ''}a run keeps its settings: {said}; leave out what differs, "
            "or start another run with --out (unstir train --help lists what may change)"
        )
    return changed


def check_same(run: "Run", found: Checkpoint, say: Say = unsaid) -> None:
    """Raise UserError where the weights of ``found`` were not trained with the settings and data of the run.

    What may change when a run is continued may differ. The message names each key, both values and what to write.
    ``say`` is told of other [grids] settings: they may be edited, and commands that are given no others sample by them.
    """
    name, file = f"the checkpoint of step {found.step}", run.path / "config.toml"
    theirs, ours = toml.flat(toml.from_dict(found.config, f"{run.path}: {name}")), toml.flat(run.config)
    said = {key: f"{key} is {_text(ours.get(key))}, not {_text(theirs.get(key))}" for key in _different(theirs, ours)}
    if fixed := [key for key in said if key not in MAY_CHANGE]:
        raise UserError(
            f"{file} is not what {name} was trained with: {_shortened([said[key] for key in fixed])}; restore it from "
            f"a copy, or write {_lines(fixed[:SHOWN], theirs)}"
        )
    card = run.data.plain()
    if other := [key for key in card if found.data and found.data.get(key) != card[key]]:
        what = ", ".join(f"{key} is {short(card[key])}, not {short(found.data.get(key))}" for key in other)
        card_file = run.path / "data.json"
        raise UserError(f"{card_file} is not of the data that {name} was trained on: {what}; restore it from a copy")
    if of_grids := [text for key, text in said.items() if key.startswith("grids.")]:
        say(f"{file} has changed since step {found.step} was saved: {', '.join(of_grids)}")


def open_store(run: "Run", named: Path | None = None) -> Store:
    """The data of a run, in the folder ``named`` or where it was packed. Raises UserError where it has gone."""
    own = run.config.data.store
    if named is None and not is_store(own):
        raise UserError(f"{own}, the data of {run.path}, is no longer there; name it with --store")
    return Store.open(named or own)


def check_data(folder: Path, data: DataCard, store: Store) -> None:
    """Raise UserError where ``store`` is not the ``data`` that the run in the folder was trained on."""
    if store.content_hash != data.content_hash:
        raise UserError(f"{store.path} is not the data of {folder}; name the store that it was trained on")


def _different(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The dotted keys at which two configs differ; their recipes may."""
    return [key for key in {**old, **new} if old.get(key) != new.get(key) and key != "recipe"]


def _shortened(parts: Sequence[str]) -> str:
    return ", ".join(parts[:SHOWN]) + (f", and {len(parts) - SHOWN} more" if len(parts) > SHOWN else "")


def _lines(keys: Sequence[str], values: Mapping[str, Any]) -> str:
    """What to write in config.toml, such as "T = 1000, beta_T = 0.02 under [diffusion] and lr = 0.1 under [train]"."""
    sections: dict[str, list[str]] = {}
    for key in keys:
        section, _, name = key.rpartition(".")
        text = f"no {name}" if values.get(key) is None else f"{name} = {_text(values[key])}"
        sections.setdefault(section, []).append(text)
    return " and ".join(
        ", ".join(lines) + (f" under [{section}]" if section else " at its top") for section, lines in sections.items()
    )


def _text(value: Any) -> str:
    """A value as TOML has it, on one line."""
    if value is None:
        return "not there"
    return " ".join(tomli_w.dumps({"x": value}).removeprefix("x = ").split())
