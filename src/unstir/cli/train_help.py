"""The help of `unstir train`: the settings by section, the most used first, with the values that would be used."""

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cyclopts.help import DefaultFormatter
from rich.markup import escape

from unstir.errors import printable
from unstir.runs import toml
from unstir.runs.config import Config

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

MOST_USED = (
    "--out", "--data.source", "--data.size", "--model.channels", "--model.num_classes", "--train.length",
    "--train.batch_size", "--train.lr", "--train.device", "--seed",
)  # fmt: skip
"""What most people set; the other settings stand by section."""
SETTINGS = "Parameters"
"""The title under which cyclopts gathers all options."""


class SettingsFormatter(DefaultFormatter):
    """Prints the settings in sections, with the values of a ``config`` as defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.source = Config(), ""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print one panel of the help, or many in place of that of all options."""
        if panel.title != SETTINGS:
            super().__call__(console, options, panel)
            return
        values = toml.flat(self.config)
        entries = {_name(entry): _with_default(entry, values) for entry in panel.entries}
        most_used = [entries.pop(name) for name in MOST_USED]
        title = f"Most used, with the values of {escape(printable(self.source))}"
        super().__call__(console, options, panel.copy(title=title, entries=most_used))
        for section, title in _sections().items():
            own = [entry for name, entry in entries.items() if name.startswith(f"--{section}.")]
            super().__call__(console, options, panel.copy(title=title, entries=own))


FORMATTER = SettingsFormatter()
"""That of `unstir train`."""


def _sections() -> dict[str, str]:
    """Each section of the settings, with a title: its name and the first words about it."""
    named = {field.name: getattr(Config(), field.name) for field in dataclasses.fields(Config)}  # type: ignore[arg-type, unused-ignore]
    about = {key: inspect.getdoc(type(value)) or "" for key, value in named.items() if dataclasses.is_dataclass(value)}
    return {key: f"{key}: {re.split('[:;,.]', text)[0].replace('`', '')}" for key, text in about.items()}


def _name(entry: "HelpEntry") -> str:
    return entry.positive_names[0]


def _with_default(entry: "HelpEntry", values: dict[str, Any]) -> "HelpEntry":
    value = values.get(_name(entry).removeprefix("--"))
    return entry.copy(default=None if value in (None, "", []) else as_typed(value))


def as_typed(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def asked(words: Sequence[str]) -> list[str] | None:
    """The words of `unstir train ... --help` without its asking for help; None for another command line."""
    if words[:1] != ["train"] or not {"--help", "-h"} & set(words):
        return None
    return [word for word in words if word not in ("--help", "-h")]
